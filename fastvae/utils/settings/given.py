"""Settings that remember which of them were given."""

from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, TypeVar

from typing_extensions import Self

from fastvae.utils.errors import InputError

G = TypeVar("G", bound="Given")


class Given:
    """Base class of settings that tell what was given from what was left at its default.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Walk(Given):
    ...     steps: int = 7
    ...     pace: int = 1
    >>> sorted(Walk(steps=7).given)
    ['steps']
    """

    _given: frozenset[str]

    def __new__(cls, **values: Any) -> Self:
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # a subclass is a dataclass
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, 1)
                raise InputError(
                    f"{cls.__name__} has no field {name}: "
                    + (f"did you mean {near[0]}?" if near else f"help({cls.__name__}) lists them")
                )
        made = super().__new__(cls)
        object.__setattr__(made, "_given", frozenset(values))
        return made

    @property
    def given(self) -> frozenset[str]:
        """The names that were given. ``dataclasses.replace`` gives all; :func:`changed` those that had been given."""
        return self._given


def changed(settings: Given, cls: type[G], *, given: Iterable[str] = (), **changes: Any) -> G:
    """Return the settings as an instance of a class, some of them changed.

    Those count as given that had been given before, and the names in ``given``.
    """
    values: dict[str, Any] = {field.name: getattr(settings, field.name) for field in fields(settings)}  # type: ignore[arg-type]
    made = cls(**(values | changes))
    object.__setattr__(made, "_given", settings.given.union(given))
    return made
