"""Losses that couple the rows of a batch, and what becomes of them where a batch is computed in parts.

A part is what one process, or one of ``--accumulate``, computes at a time. A loss that is a sum over rows is the same
in any number of parts. Three objectives and a likelihood are not such a sum:

- ``capacity`` and ``free-bits`` are functions of mean KLs of the batch. A first pass of the encoder over all parts,
  without gradients, gives these means, so that the second pass is exact. That pass has to see what the second one sees:
  it is taken for encoders that are known to compute the same twice and to change nothing.
- ``tcvae`` compares every row with every other, and :class:`fastvae.nn.OptimalGaussian` fits its variance to the batch.
  They are of the part at hand.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastvae.data import Batch
from fastvae.models import OBJECTIVES, VAE
from fastvae.models.known import is_repeatable
from fastvae.nn import Likelihood

from .world import World


def shares_kl(objective: str, model: VAE) -> bool:
    """Return whether the objective is exact in parts by a first pass of this model's encoder."""
    return OBJECTIVES[objective].batch_kl is not None and type(model) is VAE and is_repeatable(model.encoder)


def mean_kl(
    sum_kl: Callable[[Tensor, Tensor, int], Tensor],
    batch: Batch,
    parts: Sequence[tuple[int, int]],
    noise_state: Tensor,
    world: World,
) -> Tensor:
    """Return the KLs by which an objective couples rows, as means over the global batch. Collective.

    Args:
        sum_kl: sums these KLs over images, given the noise's state and the row offset.
        batch: this rank's rows.
        parts: the first row and the end of each part.
    """
    sums = [sum_kl(batch.images[start:end], noise_state, batch.row_offset + start) for start, end in parts]
    total = torch.stack(sums).sum(0)
    world.all_reduce(total)
    return total / batch.rows


def told(
    objective: str, likelihood: Likelihood, shares: bool, *, rows: int, processes: int, accumulate: int
) -> str | None:
    """Return a line about what is computed from each part of a batch alone, or None if all is as of whole batches.

    Args:
        shares: whether the run takes the first pass that :func:`shares_kl` allows.
        rows: of a batch.
    """
    parts = processes * accumulate
    names = []
    if OBJECTIVES[objective].couples_rows and not shares:
        names.append(f"objective {objective}")
    if likelihood.couples_rows:
        names.append(f"likelihood {type(likelihood).__name__}")
    lines = []
    if parts > 1 and names:
        lines.append(
            f"{' and '.join(names)}: of each part of a batch alone, {-(-rows // parts)} of {rows} rows "
            f"({processes} process{'es' if processes > 1 else ''}, --accumulate {accumulate}); "
            "another number of parts trains to other weights"
        )
    if objective == "tcvae" and rows < 2 * parts:
        lines.append("one row has no total correlation, and is trained by the ELBO: use a larger --batch-size")
    return "; ".join(lines) or None
