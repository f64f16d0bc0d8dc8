r"""Training objectives of a :class:`fastvae.VAE`, each through the fused operators of :mod:`fastvae.ops`.

They share their first arguments and their last:

- ``x``: pixels (B, ...), floating or uint8 read as x/255, as the VAE's likelihood takes them.
- ``noise``: a :class:`fastvae.Noise`, a tensor eps, or None for a fresh key.
- ``reduction``: "batchmean", "sum", or, where each row has a loss of its own, "none".
- ``weight``: a factor of the loss alone (1/batch, a loss scale). It, ``beta`` and ``capacity`` are numbers, or 0-d
  tensors on the device of x, which a CUDA graph reads anew at each replay.
- ``backend``: as in :mod:`fastvae.ops`.

The losses of :func:`elbo` and :func:`importance_weighted` are sums over the rows: however a global batch is split over
processes or accumulation steps, the sum is the same. Those of :func:`capacity`, :func:`free_bits` and
:func:`total_correlation` are not. They are functions of a statistic of the batch at hand, so that under data
parallelism each process takes it of its own rows, and they know no ``reduction="none"``. ``nll`` and ``kl`` are sums
over the rows for all (but for the likelihood that is a statistic itself, :class:`fastvae.nn.OptimalGaussian`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from .capacity import capacity as capacity
from .elbo import elbo as elbo
from .free_bits import free_bits as free_bits
from .importance_weighted import importance_weighted as importance_weighted
from .objective import Objective as Objective
from .total_correlation import total_correlation as total_correlation

OBJECTIVES: Mapping[str, Callable[..., Objective]] = MappingProxyType(
    {
        "elbo": elbo,
        "iwae": partial(importance_weighted, estimator="iwae"),
        "dreg": partial(importance_weighted, estimator="dreg"),
        "stl": partial(importance_weighted, estimator="stl"),
        "capacity": capacity,
        "free-bits": free_bits,
        "tcvae": total_correlation,
    }
)
"""The objectives by their names on the command line."""
