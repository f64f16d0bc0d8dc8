r"""Training objectives of a :class:`fastvae.VAE`, each through the fused operators of :mod:`fastvae.ops`.

All objectives share their first arguments and their last:

- ``x``: pixels (B, ...), floating or uint8 read as x/255, as the VAE's likelihood takes them.
- ``noise``: a :class:`fastvae.Noise`, a tensor eps, or None for a fresh key.
- ``reduction``: "batchmean", "sum", or, where each row has a loss of its own, "none".
- ``weight``: a factor of the loss alone (1/batch, a loss scale). ``weight``, ``beta`` and ``capacity`` are numbers, or
  0-d tensors on the device of x, which a CUDA graph reads again at each replay.
- ``backend``: as in :mod:`fastvae.ops`.

The losses of :func:`elbo` and :func:`importance_weighted` are sums over the rows: however a global batch is split over
processes or accumulation steps, the sum is the same. The losses of :func:`capacity`, :func:`free_bits` and
:func:`total_correlation` are not: they are functions of a statistic of the batch at hand, and refuse
``reduction="none"``. The first two take the whole batch's KLs as ``batch_kl``, and are exact in parts, too; the trainer
passes them, at the price of a second forward pass of the encoder. The third cannot be split: each process takes the
statistic of its own rows, and the trainer says so (``ObjectiveSpec.couples_rows``). ``nll`` and ``kl`` are sums over
the rows for all objectives (except with :class:`fastvae.nn.OptimalGaussian`, a likelihood that is a statistic itself).

**How beta reaches the kernels.** An objective returns the plain KL beside the loss, so beta is not folded into the
forward of the fused operator, which computes the plain KL. It is a factor of the KL's scalar afterwards:
``loss = nll + (weight * beta) * kl``. In backward, autograd hands ``weight * beta`` to the fused kernel as the
``grad_output`` of the KL, and the kernel multiplies it into the gradients of mu and logvar as it writes them: there is
no extra pass over the latents, and a beta on the device is read without a synchronisation. :meth:`fastvae.VAE.loss`,
:meth:`fastvae.models.ladder.LadderVAE.loss` and :func:`capacity` take this route. The beta of :func:`total_correlation`
weighs the total correlation, which is plain torch. :class:`fastvae.nn.ELBOLoss`, whose only result is the loss, has no
use for the plain KL: it passes beta to :func:`fastvae.ops.gaussian_kl` as its ``weight``, which is one operation less.
"""

from fastvae.models.objective_specs import OBJECTIVES as OBJECTIVES
from fastvae.models.objective_specs import ObjectiveSpec as ObjectiveSpec

from .capacity import capacity as capacity
from .elbo import elbo as elbo
from .free_bits import free_bits as free_bits
from .importance_weighted import importance_weighted as importance_weighted
from .objective import Objective as Objective
from .total_correlation import total_correlation as total_correlation
