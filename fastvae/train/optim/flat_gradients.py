"""All gradients of a step at once: summed over its parts and over the processes, and clipped."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastvae.train.distributed.shm_all_reduce import ShmAllReduce
from fastvae.train.distributed.world import World

from .master_weights import WorkingWeights

if TYPE_CHECKING:
    from fastvae.train.distributed.fsdp import ShardedWeights


class FlatGradients:
    """Gradients in one buffer, in the type of the weights: one sum over the processes, one norm, one look for infinity.

    The parameters' ``grad`` are views of it. After them, ``alarm`` (1,) is 0, or NaN for a loss that is not finite in
    any of the processes: so all know of it by the same sum. ShardedWeights of gradients come summed.

    Args:
        weights: whose gradients these are.
        world: over which they are summed.
        parts: in which the gradients of a step are taken.
        sent: the type in which processes exchange them, if not their own.
        changed: whether the sums are changed where they are: clipped, or freed of a loss scale.
    """

    def __init__(
        self,
        weights: "WorkingWeights[Any] | ShardedWeights",
        world: World,
        parts: int = 1,
        sent: torch.dtype | None = None,
        *,
        changed: bool = False,
    ) -> None:
        sizes = [*(parameter.numel() for parameter in weights.parameters), 1]
        first, size = weights.parameters[0].detach(), sum(sizes)
        self._shards = None if isinstance(weights, WorkingWeights) else weights
        self._shared: ShmAllReduce | None = None
        if isinstance(weights, WorkingWeights):
            own = {working.dtype for working in weights.working}
            exact = own.pop() if parts == len(own) == 1 else first.dtype  # all that one backward pass gives
            self._shared = ShmAllReduce.where_possible(size, first.dtype, sent or exact, world)
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
            _copy(self._views, gradients)

    def raise_alarm(self, sums: Tensor) -> None:
        """Set the alarm of this process by the sums of its loss and terms."""
        self._raised.copy_(sums.sum() * 0)

    def all_reduce(self, world: World) -> None:
        """Sum what was taken over the processes."""
        if self._shards is not None:
            self.alarm += torch.linalg.vector_norm(self.buffer, 1) * 0
            world.all_reduce(self.alarm)
        elif self._shared is not None:
            with world.communicating():
                if self._taken is not self._shared.own:
                    self._shared.own.copy_(self._taken)
                self._shared.all_reduce()
                if self.buffer is not self._shared.total:
                    self.buffer.copy_(self._shared.total)
        elif self._sent is None or world.size == 1:
            world.all_reduce(self.buffer)
        else:
            self._sent.copy_(self.buffer)
            world.all_reduce(self._sent)
            self.buffer.copy_(self._sent)

    def spoil(self, found: Tensor) -> None:
        """Make the gradients of a step that is not finite (``found`` is 1) so, for what judges by them alone."""
        self.buffer.div_(1 - found)

    def clip(self, norm: float) -> None:
        """Scale to a Euclidean norm of at most ``norm``, as torch.nn.utils.clip_grad_norm_ does; waits for nothing."""
        total = torch.linalg.vector_norm(self.buffer) if self._shards is None else self._shards.norm(self._gradients)
        self.buffer.mul_((norm / (total + 1e-6)).clamp(max=1))


class LaidOut:
    """Gradients as the optimisers of a GPU demand them: of the type and the strides of their weights.

    Those that autograd makes otherwise (in the type of a low-precision copy, or transposed, as ``einsum`` does) are
    copied into memory of their own, all of a type in one launch.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = [weight.detach() for weight in weights]
        self._own: dict[int, Tensor] = {}

    def __call__(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients, in the order of the weights; what is copied holds until the next call."""
        fit, others = list(gradients), []
        for k, (weight, gradient) in enumerate(zip(self._weights, gradients, strict=True)):
            if gradient.dtype != weight.dtype or gradient.stride() != weight.stride():
                if k not in self._own:
                    self._own[k] = torch.empty_like(weight)
                fit[k] = self._own[k]
                others.append(k)
        _copy([fit[k] for k in others], [gradients[k] for k in others])
        return fit


def _copy(into: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors, those of one type at once: torch takes lists of mixed types one by one."""
    lists: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(into, sources, strict=True):
        targets, same = lists.setdefault(source.dtype, ([], []))
        targets.append(target)
        same.append(source)
    for targets, same in lists.values():
        torch._foreach_copy_(targets, same)


def _laid_out(flat: Tensor, like: Tensor) -> Tensor:
    """Part of a buffer as a parameter is, of its shape and strides, for fused optimisers."""
    return flat.as_strided(like.shape, torch.empty_like(like, device="meta").stride(), flat.storage_offset())
