"""Forward and backward of one batch through sharded weights (``--parallel fsdp``)."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from fastvae.train.distributed.fsdp import ShardedWeights

from .loss import TRAIN_STREAM, StepLoss, StepScalars


class ShardedStep:
    """The counterpart of :class:`fastvae.train.step.execution.Step` for sharded weights, by eager autograd."""

    startup_s = 0.0  # nothing is traced or compiled
    is_known = is_recorded = False  # the model's own Python runs in each step

    def __init__(
        self, loss: StepLoss, weights: ShardedWeights, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._loss = loss
        self._weights = weights
        self._autocast = autocast

    def buffers(self) -> Iterable[Tensor]:
        """Yield the model's buffers."""
        return self._loss.buffers()

    def __call__(
        self,
        images: Tensor,
        noise_state: Tensor,
        row_offset: int,
        scalars: StepScalars,
        *,
        is_full: bool = True,  # noqa: ARG002 -- nothing is compiled here
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the sums of the terms over this rank's rows, and its shards of the gradients summed over all ranks."""
        with self._autocast():
            loss, sums = self._loss(images, noise_state, row_offset, TRAIN_STREAM, scalars)
        loss.backward()
        return sums.detach(), [*self._weights.take_gradients()]
