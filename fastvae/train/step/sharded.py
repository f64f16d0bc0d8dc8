"""A step of sharded weights (``--parallel fsdp``)."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from fastvae.train.distributed.fsdp import ShardedWeights

from .loss import TRAIN_STREAM, StepLoss, StepScalars


class ShardedStep:
    """The counterpart of :class:`fastvae.train.step.execution.Step` for sharded weights, by autograd."""

    def __init__(
        self, objective: StepLoss, weights: ShardedWeights, context: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._objective, self._weights, self._context = objective, weights, context

    def __call__(
        self,
        images: Tensor,
        noise_state: Tensor,
        row_offset: int,
        dials: StepScalars,
        *,
        is_full: bool = True,  # noqa: ARG002 -- nothing is compiled here
    ) -> tuple[Tensor, list[Tensor]]:
        """The sums of the terms over the rows, and the gradients of the loss over the rows of all processes."""
        with self._context():
            loss, sums = self._objective(images, noise_state, row_offset, TRAIN_STREAM, dials)
        loss.backward()
        return sums.detach(), self._weights.take_gradients()
