"""The gradients of a step in one buffer: summed over micro-batches and ranks, and clipped."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastvae.train.distributed.shm_all_reduce import ShmAllReduce
from fastvae.train.distributed.world import World

from .weights import Weights, compute_dtypes


class FlatGradients:
    """Gradients in one buffer, in the type of the weights: one all-reduce, one norm, one test for infinity.

    The parameters' ``grad`` are views of the buffer. Its last element, ``alarm`` (1,), is 0, or NaN if the loss of any
    rank is not finite: the all-reduce of the gradients tells every rank. Gradients of sharded weights come reduced.

    Args:
        weights: the weights whose gradients these are.
        world: the ranks to sum over.
        micro_batches: how many backward passes make a step.
        sent: the type in which ranks exchange gradients; None for the gradients' own.
        changed: whether the sums are modified in place: clipped, or unscaled by a loss scale.
    """

    def __init__(
        self,
        weights: Weights,
        world: World,
        micro_batches: int = 1,
        sent: torch.dtype | None = None,
        *,
        changed: bool = False,
    ) -> None:
        sizes = [*(parameter.numel() for parameter in weights.parameters), 1]
        first = weights.parameters[0].detach()
        size = sum(sizes)
        self._weights = weights
        self._shared: ShmAllReduce | None = None
        if not weights.grads_are_reduced:
            dtypes = compute_dtypes(weights)
            # One backward pass gives no more bits than its own type has.
            exact = dtypes.pop() if micro_batches == len(dtypes) == 1 else first.dtype
            self._shared = ShmAllReduce.where_possible(size, first.dtype, sent or exact, world)
        self.buffer = first.new_zeros(size) if self._shared is None or changed else self._shared.total
        self._local = self.buffer  # this rank's gradients
        if self._shared is not None:
            self._local = self._shared.own if micro_batches == 1 else first.new_zeros(size)
        *views, self._local_alarm = self._local.split(sizes)
        self._local_views = [_view_like(view, like) for view, like in zip(views, weights.parameters, strict=True)]
        *views, self.alarm = self.buffer.split(sizes)
        self._gradients = [_view_like(view, like) for view, like in zip(views, weights.parameters, strict=True)]
        self._is_used = [True] * len(self._gradients)
        for parameter, gradient in zip(weights.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        is_cast = sent is not None and self._shared is None and not weights.grads_are_reduced
        self._sent = torch.empty_like(self.buffer, dtype=sent) if is_cast else None

    def accumulate(self, gradients: list[Tensor | None], *, is_first: bool) -> None:
        """Add the gradients of a micro-batch; those of the first replace what the last step left.

        None stands for a parameter that the loss does not depend on, and counts as zero.
        """
        if is_first:
            self._is_used = [gradient is not None for gradient in gradients]
            if not all(self._is_used):
                pairs = zip(self._local_views, self._is_used, strict=True)
                torch._foreach_zero_([view for view, used in pairs if not used])
        else:
            self._is_used = [
                used or gradient is not None for used, gradient in zip(self._is_used, gradients, strict=True)
            ]
        both = zip(self._local_views, gradients, strict=True)
        given = [(view, gradient) for view, gradient in both if gradient is not None]
        views = [view for view, _ in given]
        present = [gradient for _, gradient in given]
        if is_first:
            _copy(views, present)
        elif views:
            torch._foreach_add_(views, [gradient.to(self._local.dtype) for gradient in present])

    def leave_unused(self, world: World, *, alike: bool, agree: bool) -> None:
        """Set the ``grad`` of parameters that no micro-batch used to None, so that the optimiser leaves them alone.

        Args:
            world: the ranks. With several of them a parameter is left alone if no rank uses it.
            alike: the ranks are known to use the same parameters.
            agree: else, they tell each other which, which waits for the device. Collective. If that is not set either,
                the gradient of an unused parameter is zero.
        """
        is_used = self._is_used
        if world.size > 1 and not alike:
            if agree:
                counts = torch.tensor(is_used, dtype=torch.float32, device=self.buffer.device)
                world.all_reduce(counts)
                is_used = (counts > 0).tolist()
            else:
                is_used = [True] * len(is_used)
        for parameter, gradient, used in zip(self._weights.parameters, self._gradients, is_used, strict=True):
            parameter.grad = gradient if used else None

    def raise_alarm(self, sums: Tensor) -> None:
        """Set this rank's alarm: NaN unless the sums of its loss and terms are finite."""
        self._local_alarm.copy_(sums.sum() * 0)

    def all_reduce(self, world: World) -> None:
        """Sum the accumulated gradients over the ranks."""
        if self._weights.grads_are_reduced:
            self.alarm += torch.linalg.vector_norm(self.buffer, 1) * 0
            world.all_reduce(self.alarm)
        elif self._shared is not None:
            if self._local is not self._shared.own:
                self._shared.own.copy_(self._local)
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
        """Make the gradients of a non-finite step (``found`` is 1) non-finite: a loss scale sees nothing else."""
        self.buffer.div_(1 - found)

    def clip(self, norm: float) -> None:
        """Scale to a Euclidean norm of at most ``norm``, as torch.nn.utils.clip_grad_norm_ does; never synchronizes."""
        total = self._weights.grad_norm(self.buffer, self._gradients)
        self.buffer.mul_((norm / (total + 1e-6)).clamp(max=1))


class GradientMatcher:
    """Casts gradients to the types and strides of their weights, which the optimisers of a GPU demand.

    Autograd makes others in the type of a low-precision copy, or transposed (by ``einsum``, for example). Those are
    copied into memory that is kept, all of a type in one launch.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = [weight.detach() for weight in weights]
        self._buffers: dict[int, Tensor] = {}

    def __call__(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the gradients, in the order of the weights; copies are valid until the next call."""
        matching = list(gradients)
        others: list[tuple[Tensor, Tensor]] = []
        for k, (weight, gradient) in enumerate(zip(self._weights, gradients, strict=True)):
            if gradient is None:
                continue
            if gradient.dtype != weight.dtype or gradient.stride() != weight.stride():
                if k not in self._buffers:
                    self._buffers[k] = torch.empty_like(weight)
                matching[k] = self._buffers[k]
                others.append((self._buffers[k], gradient))
        _copy([target for target, _ in others], [source for _, source in others])
        return matching


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors, those of one type at once: torch copies lists of mixed types one by one."""
    lists: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        of_type, same = lists.setdefault(source.dtype, ([], []))
        of_type.append(target)
        same.append(source)
    for of_type, same in lists.values():
        torch._foreach_copy_(of_type, same)


def _view_like(flat: Tensor, like: Tensor) -> Tensor:
    """View a slice of the buffer in the shape and strides of a parameter, which fused optimisers demand."""
    return flat.as_strided(like.shape, torch.empty_like(like, device="meta").stride(), flat.storage_offset())
