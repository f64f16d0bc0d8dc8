"""Tensors that a step changes before it is known to be finite, and how they get their values back."""

from collections.abc import Iterable

import torch
from torch import Tensor

# Integers of the same size: copies by integers keep the bits of a NaN, and a product with 0 leaves nothing of it.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Rollback:
    """Keeps copies of tensors through a step, and puts them back if the step was not finite.

    Where the host knows which step was (``on_host``), copies are made and put back one by one. Elsewhere nobody may
    wait for the device: every step takes four multi-tensor launches for all tensors of one size of element, and
    computes ``after + (before - after) * found`` in wrapping integers, which is ``before`` or ``after`` to the bit.

    Args:
        found: (1,), 1 after a step that is not finite, else 0.
        on_host: whether ``found`` can be read without waiting.
    """

    def __init__(self, found: Tensor, *, on_host: bool) -> None:
        self._found, self._on_host = found, on_host
        self._guarded: list[Tensor] = []  # kept alive, so that an identity never becomes another tensor's
        # The tensors as integers, and their copies; by device, as Adagrad and Adafactor count on the host.
        self._lists: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}

    @torch.no_grad()
    def remember(self, tensors: Iterable[Tensor]) -> None:
        """Copy tensors as they are before a step."""
        tensors = list(tensors)
        if [*map(id, tensors)] != [*map(id, self._guarded)]:
            self._guarded, self._lists = tensors, {}
            for tensor in tensors:
                integer = _INTEGERS[tensor.element_size()]
                views, copies = self._lists.setdefault((tensor.device, integer), ([], []))
                views.append(tensor.detach().view(integer))
                copies.append(torch.empty_like(views[-1]))
        for views, copies in self._lists.values():
            torch._foreach_copy_(copies, views)

    @torch.no_grad()
    def undo(self, tensors: Iterable[Tensor]) -> None:
        """Put back what the step changed, if it was not finite; make 0 what it made among ``tensors``."""
        if self._on_host:
            if self._found:
                for views, copies in self._lists.values():
                    torch._foreach_copy_(views, copies)
            return
        for (device, integer), (views, copies) in self._lists.items():
            changes = torch._foreach_sub(copies, views)
            torch._foreach_mul_(changes, self._found[0].to(device, integer))
            torch._foreach_add_(views, changes)
        known = {id(tensor) for tensor in self._guarded}
        for tensor in tensors:
            if id(tensor) not in known:
                tensor.masked_fill_((self._found[0] > 0).to(tensor.device), 0)
