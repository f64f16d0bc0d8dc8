"""Replacements of functions that stay in force until they are undone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

Function = Callable[..., Any]
Replacement = tuple[Any, str, Callable[[Function], Function]]
"""(owner, name, make): ``owner.name`` becomes ``make(original)``. The class or module must define it itself."""


@dataclass
class _Place:
    """A replaced attribute and the number of patches on it. It keeps its owner alive, whose id is its key."""

    owner: Any
    name: str
    original: Function
    replacement: Function
    patches: int = 0

    def __str__(self) -> str:
        return f"{self.owner.__name__}.{self.name}"


_lock = threading.Lock()
_places: dict[tuple[int, str], _Place] = {}


class Patch:
    """A set of replaced functions, in force from its creation until it is undone.

    Call the patch to undo it, or use it in a ``with`` statement, whose end undoes it even after an exception. Patches
    nest in any order: an original comes back when the last patch on it is undone.

    >>> from types import ModuleType
    >>> shop = ModuleType("shop")
    >>> shop.price = lambda: 3
    >>> with Patch((shop, "price", lambda original: lambda: 2 * original())):
    ...     shop.price()
    6
    >>> shop.price()
    3
    """

    def __init__(self, *replacements: Replacement) -> None:
        with _lock:
            fresh = {}
            for owner, name, make in replacements:
                if (id(owner), name) not in _places:
                    original = vars(owner)[name]
                    fresh[id(owner), name] = _Place(owner, name, original, make(original))
            for key, place in fresh.items():  # only now that every replacement could be made
                setattr(place.owner, place.name, place.replacement)
                _places[key] = place
            self._keys = [(id(owner), name) for owner, name, _ in replacements]
            for key in self._keys:
                _places[key].patches += 1

    def __call__(self) -> None:
        """Undo the patch. Further calls do nothing.

        Raises:
            RuntimeError: other code has replaced the same function since; nothing is undone.
        """
        with _lock:
            last = [(key, _places[key]) for key in self._keys if _places[key].patches == 1]
            for _, place in last:
                if vars(place.owner).get(place.name) is not place.replacement:
                    raise RuntimeError(f"{place} was replaced again after fastvae patched it: undo that patch first")
            for key in self._keys:
                _places[key].patches -= 1
            for key, place in last:
                setattr(place.owner, place.name, place.original)
                del _places[key]
            self._keys = []

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self()
