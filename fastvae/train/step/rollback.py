"""Roll back what a step changed before it was known to be non-finite."""

from collections.abc import Iterable

import torch
from torch import Tensor

# Integer types by size in bytes: copied as integers, a NaN keeps its bits, and times 0 it is 0.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Rollback:
    """Keeps copies of tensors during a step, and restores them if the step was not finite.

    If the host can read ``found`` without waiting (``on_host``), tensors are restored by copying. Otherwise the device
    must decide: ``after + (before - after) * found`` in wrapping integers is ``before`` or ``after`` to the bit, in
    four multi-tensor launches a step for all tensors of one element size.

    Args:
        found: (1,), 1 after a step that is not finite, else 0.
        on_host: whether ``found`` can be read without synchronizing.
    """

    def __init__(self, found: Tensor, *, on_host: bool) -> None:
        self._found = found
        self._on_host = on_host
        self._guarded: list[Tensor] = []  # kept alive, so that no new tensor gets the id of an old one
        # Integer views and their copies, by type and device: Adagrad and Adafactor count their steps on the host.
        self._lists: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}

    @torch.no_grad()
    def remember(self, tensors: Iterable[Tensor]) -> None:
        """Copy tensors before a step."""
        tensors = list(tensors)
        if [*map(id, tensors)] != [*map(id, self._guarded)]:
            self._guarded = tensors
            self._lists = {}
            for tensor in tensors:
                plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
                integer = _INTEGERS[plain.element_size()]
                views, copies = self._lists.setdefault((tensor.device, integer), ([], []))
                views.append(plain.detach().view(integer))
                copies.append(torch.empty_like(views[-1]))
        for views, copies in self._lists.values():
            torch._foreach_copy_(copies, views)

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the tensors as they were before the step."""
        for views, copies in self._lists.values():
            torch._foreach_copy_(views, copies)

    @torch.no_grad()
    def undo(self, tensors: Iterable[Tensor]) -> None:
        """Restore the tensors if the step was not finite, and zero those of ``tensors`` that it created."""
        if self._on_host:
            if self._found:
                self.restore()
            return
        for (device, integer), (views, copies) in self._lists.items():
            changes = torch._foreach_sub(copies, views)
            torch._foreach_mul_(changes, self._found[0].to(device, integer))
            torch._foreach_add_(views, changes)
        known = {id(tensor) for tensor in self._guarded}
        for tensor in tensors:
            if id(tensor) not in known:
                tensor.masked_fill_((self._found[0] > 0).to(tensor.device), 0)
