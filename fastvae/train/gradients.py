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
    """

    def __init__(self, weights: "WorkingWeights[Any] | Shards", world: World, sent: torch.dtype | None = None) -> None:
        """``sent``: the type in which processes exchange them, if not their own."""
        self._shards = None if isinstance(weights, WorkingWeights) else weights
        if self._shards is not None:
            sent = None
        sizes = [parameter.numel() for parameter in weights.parameters]
        first, size = weights.parameters[0].detach(), sum(sizes) + 1
        self._shared = None if sent or self._shards else SharedSum.where_possible(size, first.dtype, world)
        self.buffer = first.new_zeros(size) if self._shared is None else self._shared.own
        *parts, self.alarm = self.buffer.split([*sizes, 1])
        self._views = [part.view_as(own) for part, own in zip(parts, weights.parameters, strict=True)]
        for parameter, view in zip(weights.parameters, self._views, strict=True):
            parameter.grad = view
        self._sent = None if sent is None else torch.empty_like(self.buffer, dtype=sent)

    def take(self, gradients: list[Tensor], *, add: bool) -> None:
        """Set the buffer to these, or add them to it."""
        if add:
            torch._foreach_add_(self._views, [gradient.to(self.buffer.dtype) for gradient in gradients])
        else:
            torch._foreach_copy_(self._views, gradients)

    def raise_alarm(self, sums: Tensor) -> None:
        """Set the alarm of this process by the sums of its loss and terms."""
        self.alarm.copy_(sums.sum() * 0)

    def sum(self, world: World) -> None:
        """Sum over the processes."""
        if self._shards is not None:
            self.alarm += torch.linalg.vector_norm(self.buffer, torch.inf) * 0
            world.sum(self.alarm)
        elif self._shared is not None:
            with world.communicating():
                self._shared.sum()
        elif self._sent is None or world.size == 1:
            world.sum(self.buffer)
        else:
            self._sent.copy_(self.buffer)
            world.sum(self._sent)
            self.buffer.copy_(self._sent)

    def clip(self, norm: float) -> None:
        """Scale to a Euclidean norm of at most ``norm``, as torch.nn.utils.clip_grad_norm_ does; waits for nothing."""
        total = torch.linalg.vector_norm(self.buffer) if self._shards is None else self._shards.norm(self._views)
        self.buffer.mul_((norm / (total + 1e-6)).clamp(max=1))
