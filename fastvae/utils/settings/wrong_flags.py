"""One line about a command line that cannot be parsed, in place of tyro's boxes."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from .setting import describe, flag, types_of
from .synonyms import SYNONYMS

_VALUES = {int: "a whole number", float: "a number", str: "a word", Path: "a path"}


def fault_of_command(commands: Mapping[str, type], arguments: Sequence[str], program: str) -> str | None:
    """Return the fault of a subcommand and its flags, or None if nothing is found."""
    names = ", ".join(commands)
    if not arguments or arguments[0].startswith("-"):
        return f"a command is missing: use one of {names}; {program} COMMAND --help lists the flags of each"
    if arguments[0] not in commands:
        near = _nearest(arguments[0], list(commands))
        return f"there is no command {arguments[0]!r}: {near or f'use one of {names}'}"
    return fault_of(commands[arguments[0]], arguments[1:], f"{program} {arguments[0]}")


def fault_of(cls: type, arguments: Sequence[str], program: str) -> str | None:
    """Return the fault of the flags of ``cls``: what was found, what is needed, the remedy. None if nothing is found.

    It knows the flags' names, the number of their values, and whether a value is of the setting's type.
    """
    types = types_of(cls)
    positional = [name for name, about in describe(cls).items() if about.positional]
    given: dict[str, list[str]] = {}  # the values after each flag
    bare: list[str] = []  # those before any
    current: list[str] | None = None
    for argument in arguments:
        if not argument.startswith("--") or argument == "--":
            (bare if current is None else current).append(argument)
            continue
        name, separator, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        if name not in types and name.removeprefix("no_") not in types:
            near = _meant(name, list(types))
            return f"there is no flag {argument.partition('=')[0]}: {near or f'{program} --help lists all of them'}"
        current = given.setdefault(name, [])
        current[:] = [value] if separator else []
    for name, values in given.items():
        fault = _fault_of_values(flag(name), values, types.get(name, bool), spare=len(positional) - len(bare))
        if fault is not None:
            return fault
    found = len(bare) + sum(max(0, len(values) - 1) for values in given.values())
    if found < len(positional):
        missing = describe(cls)[positional[found]]
        return f"{missing.metavar} is missing: {missing.help.rstrip('.').lower()}; see {program} --help"
    if len(bare) > len(positional):
        return f"{bare[len(positional)]!r} does not belong to a flag: leave it out, or see {program} --help"
    return None


def _fault_of_values(name: str, values: list[str], kind: Any, spare: int) -> str | None:
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    choices = [str(choice) for each in kinds if get_origin(each) is Literal for choice in get_args(each)]
    if set(kinds) <= {bool, NoneType}:
        words = [] if NoneType not in kinds else ["True", "False"]
        if not values[max(0, spare) :] or values in ([word] for word in words):
            return None
        return f"{name} is a switch, but {values[0]!r} follows it: " + (
            "give it True or False" if words else "leave it out"
        )
    is_plain = all(each in _VALUES or each is NoneType or get_origin(each) is Literal for each in kinds)
    if not is_plain:  # a switch, or several values: tyro's own words
        return None
    wanted = f"one of {', '.join(choices)}" if choices else next(_VALUES[each] for each in kinds if each in _VALUES)
    if not values:
        return f"{name} has no value: give it {wanted}"
    if len(values) > 1 + max(0, spare):
        return f"{name} has {len(values)} values, {' '.join(values)!r}: give it {wanted}"
    return None if _suits(values[0], kinds, choices) else f"{name} is {values[0]!r}: give it {wanted}"


def _suits(value: str, kinds: Sequence[Any], choices: Sequence[str]) -> bool:
    """Return whether a value is of one of the types, or one of the choices."""
    if NoneType in kinds and value == "None":
        return True
    if choices:
        return value in choices
    for kind in (int, float):
        if kind in kinds:
            try:
                kind(value)
            except ValueError:
                return False
    return True


def _meant(name: str, known: Sequence[str]) -> str | None:
    """Guess which setting an unknown one means: by what other programs call it, else by its letters."""
    synonyms = [flag(each) for each in SYNONYMS.get(name, ()) if each in known]
    if synonyms:
        return f"did you mean {' or '.join(synonyms)}?"
    return _nearest(flag(name), [flag(each) for each in known])


def _nearest(name: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else None
