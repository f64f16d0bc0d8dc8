"""Steps whose loss or gradient is not finite: found where they happen, kept from the weights, told of later."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops import Noise
from ..ops.all_finite import all_finite
from .world import World

REMEDY = "try a smaller --lr, --clip-norm, or --precision fp32, with another --out"


class Report(NamedTuple):
    """What is known of such steps.

    found: how many there were. step: the first of them, counted from 1. loss, nll, kl: its terms in nats per sample.
    """

    found: int
    step: int
    loss: float
    nll: float
    kl: float

    def __str__(self) -> str:
        """What was not finite in the first of them."""
        terms = f"loss {self.loss:g}, nll {self.nll:g}, kl {self.kl:g}"
        if all(map(math.isfinite, (self.loss, self.nll, self.kl))):
            return f"step {self.step} has a gradient that is not finite ({terms})"
        return f"step {self.step} has a loss that is not finite ({terms})"


class Nonfinite:
    """Finds such steps without waiting for the device, and counts them there.

    Where nobody has to wait, on a CPU, ``found`` is looked at in the step, and the update is left out. Elsewhere the
    update is made, and ``found`` decides on the device whether it lasts.

    Args:
        noise: that of the run; its state counts the steps.
        lasting: find all steps after the first one too, so that the run stays as it was before.
    """

    def __init__(self, noise: Noise, *, lasting: bool) -> None:
        device = noise.state.device
        self._step, self._lasting = noise.state[1:], lasting
        self.on_host = _is_at_hand(device)
        self.found = torch.zeros(1, device=device)  # not 0 if the step is such; fused optimisers take it so
        self.record = torch.zeros(5, dtype=torch.float64, device=device)  # a Report, whose step is counted from 0

    def look(self, sums: Tensor, gradients: list[Tensor], rows: int) -> None:
        """Set ``found`` for a step: ``sums`` (3,) of a batch of so many rows, and what the gradients are.

        On a GPU the sum of the gradients' magnitudes stands for them: finite ones beyond 1e30 may make it infinite.
        """
        if self.on_host:
            finite = all(map(math.isfinite, sums.tolist())) and all_finite(gradients)
            if finite and not (self._lasting and self.found.item()):
                self.found.zero_()
                return
            bad = torch.ones(1, dtype=torch.bool)
        else:
            size = torch.stack(torch._foreach_norm(gradients, 1)).sum() + sums.sum()
            bad = ~size.isfinite().view(1)
            if self._lasting:
                bad |= self.found > 0
        first = torch.cat((self._step, sums / rows))
        self.record[1:] = torch.where(bad & (self.record[:1] == 0), first, self.record[1:])
        self.record[:1] += bad
        self.found.copy_(bad)

    @property
    def leaves_out(self) -> bool:
        """Whether the host knows that the step changes nothing."""
        return self.on_host and bool(self.found)

    def add(self, total: Tensor, sums: Tensor, rows: int) -> None:
        """Add to ``total`` (4,) a step's sums (3,) over so many rows of this process, or for a bad one its rows."""
        if self.on_host and not self.found:
            total[:3] += sums
            return
        left_out = torch.zeros_like(total)
        left_out[3].fill_(rows)
        total += torch.where(self.found > 0, left_out, torch.nn.functional.pad(sums, (0, 1)))

    def report(self, world: World) -> Report:
        """What was found since the record was last made 0. Waits for the device; all processes have to ask."""
        count, step, *_ = values = self.record.tolist()
        if count and world.size > 1:  # they agree on these two, and each knows a share of the terms
            terms = self.record[2:].clone()
            world.sum(terms)
            values[2:] = terms.tolist()
        return Report(int(count), int(step) + 1, *values[2:])

    def clear(self) -> None:
        """Forget all that was found."""
        self.found.zero_()
        self.record.zero_()

    @torch.no_grad()
    def undo(self, before: dict[int, tuple[Tensor, Tensor]], after: Iterable[Tensor]) -> None:
        """Put tensors back to what :func:`remember` kept, if the step was found; to 0 those that it made."""
        if self.on_host and not self.found:
            return
        for tensor in after:
            value = before[id(tensor)][1] if id(tensor) in before else torch.zeros_like(tensor)
            tensor.copy_(torch.where(self.found[0] > 0, value, tensor))


def remember(tensors: Iterable[Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
    """Tensors by identity, and copies of them."""
    return {id(tensor): (tensor, tensor.detach().clone()) for tensor in tensors}


def _is_at_hand(device: torch.device) -> bool:
    return device.type == "cpu"
