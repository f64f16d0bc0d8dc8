"""Non-finite steps: found on the device, kept from the weights, reported later."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastvae.ops import Backend
from fastvae.ops.internal.all_finite import all_finite
from fastvae.ops.internal.record_step import record_step_
from fastvae.train.distributed.world import World
from fastvae.train.optim.step_counter import StepCounter
from fastvae.utils.errors import InputError

_NOT_FINITE = torch.tensor([math.inf])  # stands for the norms of gradients that the host has found not to be finite
REMEDY = "try a smaller --lr, --clip-norm, or --precision fp32, with another --out"


class Report(NamedTuple):
    """A report of the non-finite steps.

    found: their number. step: the first of them, counted from 1. loss, nll, kl: its terms in nats per sample.
    """

    found: int
    step: int
    loss: float
    nll: float
    kl: float

    def __str__(self) -> str:
        """Say what was not finite in the first of them."""
        terms = f"loss {self.loss:g}, nll {self.nll:g}, kl {self.kl:g}"
        if all(map(math.isfinite, (self.loss, self.nll, self.kl))):
            return f"step {self.step} has a gradient that is not finite ({terms})"
        return f"step {self.step} has a loss that is not finite ({terms})"

    def of_epoch(self, epoch: int, steps: int) -> str:
        """Return a line on an epoch whose non-finite steps were skipped. Raises InputError if all ``steps`` were."""
        if self.found < steps:
            return f"epoch {epoch}: skipped {self.found} of its steps; {self}"
        raise InputError(
            f"no step of epoch {epoch} was finite, so none changed the weights ({self}): {REMEDY}; or start a new run "
            "from an earlier checkpoint with --init-from"
        )


class Nonfinite:
    """Finds and counts non-finite steps without synchronizing with the device.

    On a CPU the host reads ``found`` during the step and skips the update. On a GPU the update is made, and ``found``
    decides on the device whether it is kept.

    Args:
        counter: the run's step counter; each :meth:`check` advances it.
        sticky: count all steps after the first non-finite one as non-finite too, so that the run stays as it was.
        backend: "reference" launches no Triton kernel.
    """

    def __init__(self, counter: StepCounter, *, sticky: bool, backend: Backend = "auto") -> None:
        device = counter.state.device
        self._counter = counter
        self._sticky = sticky
        self._backend: Backend = "reference" if backend == "reference" else "auto"  # "native" has no such operator
        self.on_host = _is_on_host(device)
        self.found = torch.zeros(1, device=device)  # 1 after a non-finite step, as fused optimisers take found_inf
        self.log = torch.zeros(5, dtype=torch.float64, device=device)  # a Report, but with the step counted from 0

    def check(self, total: Tensor, sums: Tensor, gradients: list[Tensor], *, rows: int, images: int) -> None:
        """Set ``found`` for a step, add its sums to ``total`` and the log, and count the step.

        On a GPU the 1-norms of the gradients are tested: those of finite gradients beyond 1e30 may overflow.

        Args:
            total: (4,) fp64: the step's sums are added; if it is not finite, its images are added to the last place.
            sums: (3,) loss, nll and KL over the rows of this rank.
            gradients: all gradients of the step, or tensors that are finite if and only if these are.
            rows: the global batch size.
            images: the rows of this rank.
        """
        if not self.on_host:
            norms = torch._foreach_norm(gradients, 1)
            stacked = norms[0].view(1) if len(norms) == 1 else torch.stack(norms)
            self._record(total, sums, stacked, rows=rows, images=images)
            return
        finite = all_finite([sums, *gradients])
        if finite and not (self._sticky and self.found.item()):
            self.found.zero_()
            total[:3].add_(sums)
            self._counter.advance()
            return
        self._record(total, sums, _NOT_FINITE, rows=rows, images=images)

    def _record(self, total: Tensor, sums: Tensor, norms: Tensor, *, rows: int, images: int) -> None:
        arguments = self.found, self.log, total, self._counter.state, sums, norms
        record_step_(*arguments, rows=rows, images=images, lasting=self._sticky, backend=self._backend)

    @property
    def skips(self) -> bool:
        """True if the host knows that the step is not finite, and skips its update."""
        return self.on_host and bool(self.found)

    def report(self, world: World) -> Report:
        """Report what was found since the log was last cleared. Synchronizes with the device. Collective."""
        values = self.log.tolist()
        count, step = values[:2]
        if count and world.size > 1:  # the ranks agree on these two; each has a share of the terms
            terms = self.log[2:].clone()
            world.all_reduce(terms)
            values[2:] = terms.tolist()
        return Report(int(count), int(step) + 1, *values[2:])

    def clear(self) -> None:
        """Forget all that was found."""
        self.found.zero_()
        self.log.zero_()


def _is_on_host(device: torch.device) -> bool:
    return device.type == "cpu"
