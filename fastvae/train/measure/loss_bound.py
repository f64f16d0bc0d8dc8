"""The bound on the loss of a candidate of the autotune trial, relative to fp32's over the same steps."""

import math

from torch import Tensor

from fastvae.train.config import SettledExecution, SettledPrecision
from fastvae.train.distributed.world import World

Candidate = tuple[SettledPrecision, SettledExecution]

# A candidate is left out if its mean loss over the trial's steps exceeds fp32's by more than this share of it, or by
# this many nats a pixel value if that is more (densities have losses near 0). Over 40 steps of each preset bf16's loss
# was worse by 5e-4 of it at most, and 2e-4 nats a value (conv28).
_LOSS_SHARE = 0.01
_LOSS_NATS = 0.002


def mean_loss(sums: Tensor, steps: Tensor, rows: int, world: World) -> float:
    """Return the mean loss of an engine's steps in nats a sample; infinity if one was not finite. Collective.

    Args:
        sums: the engine's, of this rank.
        steps: (1,) the steps taken.
        rows: of the global batch.
        world: the ranks.
    """
    sums = sums.clone()
    world.all_reduce(sums)
    loss = sums[0].item() / (int(steps) * rows)
    return loss if sums[3].item() == 0 and math.isfinite(loss) else math.inf


def losses_too_bad(losses: dict[Candidate, float], pixels: int) -> set[Candidate]:
    """Return the candidates whose loss is worse than fp32's beyond the bound, or not finite where fp32's is.

    Args:
        losses: of each candidate over the same steps, in nats a sample.
        pixels: values in a sample.
    """
    exact = [loss for (precision, _), loss in losses.items() if precision == "fp32"]
    if not exact:
        return set()
    limit = max(exact) + max(_LOSS_SHARE * abs(max(exact)), _LOSS_NATS * pixels)
    return {candidate for candidate, loss in losses.items() if not loss <= limit}


def tell_losses(losses: dict[Candidate, float], too_bad: set[Candidate]) -> str:
    """Say which precision was left out, and by how much its loss is worse."""
    if not too_bad:
        return ""
    precision, execution = min(too_bad)
    exact = max(loss for (precision, _), loss in losses.items() if precision == "fp32")
    return (
        f"{precision} left out, as its loss in the trial is {losses[precision, execution]:.4g}, and fp32's {exact:.4g}"
    )
