"""Roll back what a step changed before it was known to be non-finite."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

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
        self._places: list[tuple[dict[str, Tensor | None], str, Tensor | None]] = []

    @torch.no_grad()
    def remember(self, tensors: Iterable[Tensor], modules: Iterable[nn.Module] = ()) -> None:
        """Copy tensors before a step, and :meth:`note` the buffers of ``modules``."""
        self.note(modules)
        tensors = list(tensors)
        if [*map(id, tensors)] != [*map(id, self._guarded)]:
            self._guarded = tensors
            self._lists = {}
            for tensor in tensors:
                plain = _raw(tensor)
                integer = _INTEGERS[plain.element_size()]
                views, copies = self._lists.setdefault((tensor.device, integer), ([], []))
                views.append(plain.detach().view(integer))
                copies.append(torch.empty_like(views[-1]))
        for views, copies in self._lists.values():
            torch._foreach_copy_(copies, views)

    def note(self, modules: Iterable[nn.Module]) -> None:
        """Note which buffers ``modules`` have, as a step may replace them by others."""
        self._places = [(module._buffers, *item) for module in modules for item in module._buffers.items()]

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the tensors as they were before the step, and put buffers back that it replaced."""
        for buffers, name, before in self._places:
            buffers[name] = before
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
        for buffers, name, before in self._places:
            after = buffers[name]
            if after is before or after is None or before is None:
                continue
            if (after.shape, after.dtype, after.device) == (before.shape, before.dtype, before.device):
                buffers[name] = torch.where((self._found[0] > 0).to(after.device), before, after)


def _raw(tensor: Tensor) -> Tensor:
    """Return a view of a tensor's memory, as real numbers; conjugates and negatives that torch keeps lazily as such."""
    plain = tensor.conj() if tensor.is_conj() else tensor
    plain = torch._neg_view(plain) if plain.is_neg() else plain
    return torch.view_as_real(plain) if plain.is_complex() else plain
