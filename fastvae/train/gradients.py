"""All gradients of a step at once: summed over its parts and over the processes, and clipped."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .shared import SharedSum
from .weights import WorkingWeights
from .world import World

if TYPE_CHECKING:
    from .shards import Shards


class FlatGradients:
    """Gradients in one buffer, in the type of the weights: one sum over the processes, one norm, one look for infinity.

    The parameters' ``grad`` are views of it. After them, ``alarm`` (1,) is 0, or NaN for a loss that is not finite in
    any of the processes: so all know of it by the same sum. Shards of gradients come summed.

    Args:
        weights: whose gradients these are.
        world: over which they are summed.
        parts: in which the gradients of a step are taken.
        sent: the type in which processes exchange them, if not their own.
        changed: whether the sums are changed where they are: clipped, or freed of a loss scale.
    """

    def __init__(
        self,
        weights: "WorkingWeights[Any] | Shards",
        world: World,
        parts: int = 1,
        sent: torch.dtype | None = None,
        *,
        changed: bool = False,
    ) -> None:
        sizes = [*(parameter.numel() for parameter in weights.parameters), 1]
        first, size = weights.parameters[0].detach(), sum(sizes)
        self._shards = None if isinstance(weights, WorkingWeights) else weights
        self._shared: SharedSum | None = None
        if isinstance(weights, WorkingWeights):
            own = {working.dtype for working in weights.working}
            exact = own.pop() if parts == len(own) == 1 else first.dtype  # all that one backward pass gives
            self._shared = SharedSum.where_possible(size, first.dtype, sent or exact, world)
        self.buffer = first.new_zeros(size) if self._shared is None or changed else self._shared.total
        self._taken = self.buffer
        if self._shared is not None:
            self._taken = self._shared.own if parts == 1 else first.new_zeros(size)
        *views, self._raised = self._taken.split(sizes)
        self._views = [_laid_out(view, like) for view, like in zip(views, weights.parameters, strict=True)]
        *views, self.alarm = self.buffer.split(sizes)
        self._gradients = [_laid_out(view, like) for view, like in zip(views, weights.parameters, strict=True)]
        for parameter, gradient in zip(weights.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        sends_alone = sent is not None and self._shared is None and self._shards is None
        self._sent = torch.empty_like(self.buffer, dtype=sent) if sends_alone else None

    def take(self, gradients: list[Tensor], *, add: bool) -> None:
        """Take the gradients of a step, or add to those that were taken."""
        if add:
            torch._foreach_add_(self._views, [gradient.to(self._taken.dtype) for gradient in gradients])
        else:
            torch._foreach_copy_(self._views, gradients)

    def raise_alarm(self, sums: Tensor) -> None:
        """Set the alarm of this process by the sums of its loss and terms."""
        self._raised.copy_(sums.sum() * 0)

    def sum(self, world: World) -> None:
        """Sum what was taken over the processes."""
        if self._shards is not None:
            self.alarm += torch.linalg.vector_norm(self.buffer, 1) * 0
            world.sum(self.alarm)
        elif self._shared is not None:
            with world.communicating():
                if self._taken is not self._shared.own:
                    self._shared.own.copy_(self._taken)
                self._shared.sum()
                if self.buffer is not self._shared.total:
                    self.buffer.copy_(self._shared.total)
        elif self._sent is None or world.size == 1:
            world.sum(self.buffer)
        else:
            self._sent.copy_(self.buffer)
            world.sum(self._sent)
            self.buffer.copy_(self._sent)

    def clip(self, norm: float) -> None:
        """Scale to a Euclidean norm of at most ``norm``, as torch.nn.utils.clip_grad_norm_ does; waits for nothing."""
        total = torch.linalg.vector_norm(self.buffer) if self._shards is None else self._shards.norm(self._gradients)
        self.buffer.mul_((norm / (total + 1e-6)).clamp(max=1))


def _laid_out(flat: Tensor, like: Tensor) -> Tensor:
    """Part of a buffer as a parameter is: of its shape, and in channels_last where that is, for fused optimisers."""
    if like.ndim == 4 and not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last):
        rows, channels, height, width = like.shape
        return flat.view(rows, height, width, channels).permute(0, 3, 1, 2)
    return flat.view_as(like)
