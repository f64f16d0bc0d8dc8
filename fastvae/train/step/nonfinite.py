"""Steps whose loss or gradient is not finite: found where they happen, kept from the weights, told of later."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastvae.ops import Backend, Noise
from fastvae.ops.internal.all_finite import all_finite
from fastvae.ops.internal.record_step import record_step_
from fastvae.train.distributed.world import World

_NOT_FINITE = torch.tensor([math.inf])  # in the place of the sizes of gradients of which the host knows
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
        noise: that of the run; its state counts the steps, each in the look at it.
        backend: reference launches no kernel of Triton's.
        lasting: find all steps after the first one too, so that the run stays as it was before.
    """

    def __init__(self, noise: Noise, *, lasting: bool, backend: Backend = "auto") -> None:
        device = noise.state.device
        self._state, self._lasting = noise.state, lasting
        self._backend: Backend = (
            "reference" if backend == "reference" else "auto"
        )  # on a CPU, native has no such operator
        self.on_host = _is_at_hand(device)
        self.found = torch.zeros(1, device=device)  # not 0 if the step is such; fused optimisers take it so
        self.record = torch.zeros(5, dtype=torch.float64, device=device)  # a Report, whose step is counted from 0

    def look(self, total: Tensor, sums: Tensor, gradients: list[Tensor], *, rows: int, images: int) -> None:
        """Set ``found`` for a step, add what it says to ``total`` and the record, and count the step.

        On a GPU the sum of the gradients' magnitudes stands for them: finite ones beyond 1e30 may make it infinite.

        Args:
            total: (4,) fp64: gets the step's sums or, of one that is not finite, its images in the last place.
            sums: (3,) loss, nll and KL over the rows of this process.
            gradients: all of the step's, or what tells of them.
            rows: of the batch, in all processes.
            images: of the batch, in this process.
        """
        if not self.on_host:
            sizes = torch._foreach_norm(gradients, 1)
            magnitudes = sizes[0].view(1) if len(sizes) == 1 else torch.stack(sizes)
            self._record(total, sums, magnitudes, rows=rows, images=images)
            return
        finite = all(map(math.isfinite, sums.tolist())) and all_finite(gradients)
        if finite and not (self._lasting and self.found.item()):
            self.found.zero_()
            total[:3] += sums
            self._state[1] += 1
            return
        self._record(total, sums, _NOT_FINITE, rows=rows, images=images)

    def _record(self, total: Tensor, sums: Tensor, sizes: Tensor, *, rows: int, images: int) -> None:
        arguments = self.found, self.record, total, self._state, sums, sizes
        record_step_(*arguments, rows=rows, images=images, lasting=self._lasting, backend=self._backend)

    @property
    def leaves_out(self) -> bool:
        """Whether the host knows that the step changes nothing."""
        return self.on_host and bool(self.found)

    def report(self, world: World) -> Report:
        """What was found since the record was last made 0. Waits for the device; all processes have to ask."""
        count, step, *_ = values = self.record.tolist()
        if count and world.size > 1:  # they agree on these two, and each knows a share of the terms
            terms = self.record[2:].clone()
            world.all_reduce(terms)
            values[2:] = terms.tolist()
        return Report(int(count), int(step) + 1, *values[2:])

    def clear(self) -> None:
        """Forget all that was found."""
        self.found.zero_()
        self.record.zero_()


def _is_at_hand(device: torch.device) -> bool:
    return device.type == "cpu"
