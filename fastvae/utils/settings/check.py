"""Checks of a configuration's values, derived from how its settings are declared."""

import math
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from typeguard import TypeCheckError, check_type

from fastvae.utils.errors import InputError

from .setting import Setting, describe, flag, types_of

_WORDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "True or False", str: "text", Path: "a path", NoneType: "None",
    dict[str, float]: "a dictionary of numbers by name",
}  # fmt: skip
_MOST = 1 << 48  # a larger number counts nothing that a machine could hold or do


def check_types(config: Any) -> None:
    """Check that each value has its setting's type and is one of its choices: values from Python are unchecked so far.

    Raises:
        InputError: naming the setting, its value, and the choices or the type.
    """
    for name, kind in types_of(type(config)).items():
        value = getattr(config, name)
        kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        choices = [choice for each in kinds if get_origin(each) is Literal for choice in get_args(each)]
        if choices:
            if not (isinstance(value, str) and value in choices) and not (value is None and NoneType in kinds):
                raise InputError(f"{flag(name)} is {value!r}: use one of {', '.join(map(str, choices))}")
            continue
        try:
            # In Python, True is a whole number.
            if isinstance(value, bool) and bool not in kinds:
                raise TypeCheckError("a bool")
            check_type(value, Union[kind, str] if Path in kinds else kind)  # noqa: UP007 -- of types in variables
        except TypeCheckError as error:
            wanted = " or ".join(_WORDS.get(each, "a value for each name") for each in kinds)
            raise InputError(
                f"{flag(name)} is {value!r}, of the wrong type, {type(value).__name__}: it must be {wanted}"
            ) from error


def check_ranges(config: Any) -> None:
    """Check that each number is in its setting's range; None is not checked.

    Raises:
        InputError: naming the flag, its value and the range.
    """
    for name, described in describe(type(config)).items():
        value = getattr(config, name)
        if value is None or described.low is None:
            continue
        told = _violated(value, described)
        if told is not None:
            raise InputError(f"{flag(name)} is {value}: it must be {told}")


def _violated(value: float, described: Setting) -> str | None:
    """Return the range in words if a value is outside it, NaN included."""
    low = described.low
    assert low is not None
    above = value > low if described.exclusive else value >= low
    if described.high is not None:
        if above and value < described.high:
            return None
        opening = "(" if described.exclusive else "["
        example = "" if described.example is None else f", {described.example} for example"
        return f"in {opening}{low:g}, {_shown(described.high)}){example}"
    if isinstance(value, int) and not described.exclusive and isinstance(low, int):
        if not above:
            return f"at least {low}"
        return None if value < _MOST else f"below {_shown(_MOST)}"
    if above and value < math.inf:
        return None
    return f"a finite number, above {low:g}" if described.exclusive else f"a finite number, {low:g} or more"


def _shown(high: float) -> str:
    """Return a bound in words, a large power of two as such."""
    exponent = math.log2(high)
    return f"2**{exponent:.0f}" if exponent >= 32 and exponent.is_integer() else f"{high:g}"
