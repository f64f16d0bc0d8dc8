"""Settings in the words of the caller: flags on the command line, names of fields in Python.

Messages are written with flags. :func:`in_words_of_caller` says them with the names of fields to a caller in Python:
no message is written twice.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from fastvae.utils.errors import InputError

from .setting import types_of

_is_command_line = ContextVar("fastvae_command_line", default=False)
_FLAG = re.compile(
    r"(?P<ask>\b(?:add|use|with|to) )?(?<![\w-])--(?P<name>[a-z][a-z0-9-]*)(?: (?P<value>(?!--)[^\s,:;()]+))?"
)
_PLACEHOLDER = re.compile(r"[A-Z]{1,}")  # N, NATS, DIR


@contextmanager
def on_command_line() -> Iterator[None]:
    """Have messages name flags within."""
    token = _is_command_line.set(True)
    try:
        yield
    finally:
        _is_command_line.reset(token)


@contextmanager
def in_words_of_caller(cls: type) -> Iterator[None]:
    """Have every InputError from within name the settings of ``cls`` as the caller gives them."""
    try:
        yield
    except InputError as error:
        error.args = (as_typed(str(error), cls), *error.args[1:])
        raise


def as_typed(message: str, cls: type) -> str:
    """Return a message that names flags in the words of the caller.

    >>> from dataclasses import dataclass
    >>> from .setting import setting
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Walk:
    ...     max_steps: int = setting(7, help="Number of steps.")
    ...     slow: bool = setting(False, help="Walk slowly.")
    >>> as_typed("--max-steps is 0: use --max-steps 3, or add --slow", Walk)
    'max_steps is 0: use max_steps=3, or add slow=True'
    """
    if _is_command_line.get():
        return message
    types = types_of(cls)

    def name_of(found: "re.Match[str]") -> str:
        name = found["name"].replace("-", "_")
        if name not in types:
            return found[0]
        ask = found["ask"] or ""
        value = found["value"]
        kind = types[name]
        shown = None if value is None else _literal(value, kind)
        if shown is not None:
            return f"{ask}{name}={shown}"
        rest = "" if value is None else f" {value}"
        is_asked_for = bool(ask) and bool in _plain_types(kind) and not ask.startswith("to")
        return f"{ask}{name}{'=True' if is_asked_for else ''}{rest}"

    return _FLAG.sub(name_of, message)


def _plain_types(kind: Any) -> tuple[Any, ...]:
    return (kind,) if get_origin(kind) is Literal or not get_args(kind) else get_args(kind)


def _literal(word: str, kind: Any) -> str | None:
    """Return a flag's value as Python writes it; None for a word that is not one, but goes on with the sentence."""
    if _PLACEHOLDER.fullmatch(word) or word == "None":
        return word
    for each in _plain_types(kind):
        choices = get_args(each) if get_origin(each) is Literal else ()
        if word in choices:
            return repr(word)
        if each is bool and word in ("True", "False"):
            return word
        if each in (int, float) and re.fullmatch(r"-?[0-9][0-9.e+-]*", word):
            return word
        if each is Path and "/" in word:
            return repr(word)
    return None
