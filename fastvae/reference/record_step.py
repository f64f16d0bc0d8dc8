"""A step's bookkeeping: is it finite, and what does it add to the epoch's sums and to the record of bad steps."""

import torch
from torch import Tensor


def record_step_(
    found: Tensor,
    record: Tensor,
    total: Tensor,
    state: Tensor,
    sums: Tensor,
    sizes: Tensor,
    rows: int,
    images: int,
    lasting: bool,
) -> None:
    """As :func:`fastvae.ops.internal.record_step.record_step_`, one operator after the other."""
    bad = ~(sizes.double().sum() + sums.double().sum()).isfinite().view(1)
    if lasting:
        bad |= found > 0
    first = torch.cat((state[1:].double(), sums.double() / rows))
    record[1:] = torch.where(bad & (record[:1] == 0), first, record[1:])
    record[:1] += bad
    found.copy_(bad)
    left_out = torch.zeros_like(total)
    left_out[3].fill_(images)
    total += torch.where(bad, left_out, torch.nn.functional.pad(sums, (0, 1)))
    state[1] += 1
