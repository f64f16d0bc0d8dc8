"""Command line of a settings class: one flag for each setting, ``--help`` grouped by theme."""

import dataclasses
import io
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import tyro

from fastvae.utils.errors import InputError
from fastvae.utils.terminal import NARROWEST

from .setting import FROM_PRESET, Setting, describe, types_of
from .wrong_flags import fault_of, fault_of_command

T = TypeVar("T")
_GROUP = "group_"  # begins the names of the fields that hold a group
_WITHOUT_BOX = str.maketrans(dict.fromkeys("╭╮╰╯│─", " "))
_METAVARS = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


def parse(cls: type[T], arguments: Sequence[str], *, program: str) -> T:
    """Parse flags into an instance of ``cls``, whose docstring is the description.

    ``--help`` prints, and exits with status 0.

    Raises:
        InputError: a flag that is unknown, or has no value or a wrong one.
    """
    parsed = _by_tyro(_nested(cls), arguments, program, lambda: fault_of(cls, arguments, program))
    return _flat(cls, parsed, typed_in(cls, arguments))


def typed_in(cls: type, arguments: Sequence[str]) -> set[str]:
    """Return the settings that have no flag, or whose flags are among the arguments: ``--x``, ``--x=V``, ``--no-x``."""
    words = {argument[2:].partition("=")[0].replace("-", "_") for argument in arguments if argument.startswith("--")}
    return {
        name for name, about in describe(cls).items() if about.positional or not words.isdisjoint((name, f"no_{name}"))
    }


def parse_command(
    commands: Mapping[str, type], arguments: Sequence[str], *, program: str, description: str | None
) -> Any:
    """Parse a subcommand and its flags into an instance of the subcommand's class, as :func:`parse` does."""
    nested = {_nested(cls): cls for cls in commands.values()}
    subcommands = (Annotated[inner, tyro.conf.subcommand(name)] for name, inner in zip(commands, nested, strict=True))
    union: Any = Union
    kind = union[tuple(subcommands)]
    parsed = _by_tyro(kind, arguments, program, lambda: fault_of_command(commands, arguments, program), description)
    cls = nested[type(parsed)]
    return _flat(cls, parsed, set(describe(cls)))


def _by_tyro(
    kind: Any, arguments: Sequence[str], program: str, find: Callable[[], str | None], description: str | None = None
) -> Any:
    """Parse by tyro, but say in one line what is wrong: as ``find`` does, or in tyro's words without their box."""
    _check_empty(arguments)
    said = io.StringIO()
    try:
        with redirect_stderr(said), _wide_enough():
            return tyro.cli(kind, args=arguments, prog=program, description=description)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        words = " ".join(said.getvalue().translate(_WITHOUT_BOX).split())
        raise InputError(find() or f"{words}; see {program} --help") from None
    except BrokenPipeError:  # `--help | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:  # of the help, in pieces: nothing else is opened or written here
        why = error.strerror
        raise InputError(f"cannot write the help to standard output ({why}): send it to another place") from error


def _check_empty(arguments: Sequence[str]) -> None:
    """Refuse an empty argument, as ``--out "$UNSET"`` gives: a path would be the current folder."""
    for before, word in itertools.pairwise(["", *arguments]):
        name = before if before.startswith("--") and "=" not in before else "an argument"
        if not word:
            raise InputError(f"{name} is empty: give it a value, or leave it out")
        if word.startswith("--") and word.endswith("="):
            raise InputError(f"{word[:-1]} is empty: give it a value, or leave it out")


@contextmanager
def _wide_enough() -> Iterator[None]:
    """Have tyro draw for 80 columns where a terminal says that it has next to none, in which its boxes have no room."""
    if shutil.get_terminal_size().columns >= NARROWEST:
        yield
        return
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _nested(cls: type) -> type:
    """Make a dataclass of one dataclass for each group: tyro gives each its own box, and flags keep their names."""
    described = describe(cls)
    types = types_of(cls)
    groups: dict[str | None, list[Any]] = {None: []}
    for field in dataclasses.fields(cls):
        about = described[field.name]
        kind = _annotated(types[field.name], about)
        groups.setdefault(about.group, []).append((field.name, kind, _default_of(field)))
    fields = groups.pop(None)
    for number, (group, members) in enumerate(groups.items()):
        inner = dataclasses.make_dataclass(f"{cls.__name__}{number}", members, kw_only=True)
        inner.__doc__ = ""  # otherwise the signature, which dataclasses puts there, is shown
        # Without a help text, tyro would parse source files to find one: 40 ms.
        kind = Annotated[inner, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name=group, help="")]
        fields.append((f"{_GROUP}{number}", kind, dataclasses.field(default_factory=inner)))
    nested = dataclasses.make_dataclass(cls.__name__, fields, kw_only=True)
    nested.__doc__ = cls.__doc__
    return nested


def _flat(cls: type[T], parsed: Any, typed: set[str]) -> T:
    """Make the settings of those values that were typed."""
    values: dict[str, Any] = {}
    for name, value in vars(parsed).items():
        values.update(vars(value) if name.startswith(_GROUP) else {name: value})
    return cls(**{name: _at_home(value) for name, value in values.items() if name in typed})


def _at_home(value: Any) -> Any:
    """Put the user's home folder in place of a leading ``~``, which a shell leaves alone in ``--out=~/run``."""
    if isinstance(value, str | Path) and str(value).startswith("~"):
        return type(value)(os.path.expanduser(value))
    return value


def _default_of(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field() if field.default is dataclasses.MISSING else dataclasses.field(default=field.default)


def _annotated(kind: Any, about: Setting) -> Any:
    """Annotate a setting's type with all that tyro shows of it."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    optional = NoneType in kinds
    plain = next(each for each in kinds if each is not NoneType)
    metavar = about.metavar
    if metavar is None and optional:  # tyro's own would begin with {None}
        choices = get_args(plain) if get_origin(plain) is Literal else None
        metavar = _METAVARS.get(plain) if choices is None else "{" + ",".join(map(str, choices)) + "}"
    shown = about.shown_default or (FROM_PRESET if about.from_preset else None)
    annotation = tyro.conf.arg(
        metavar=metavar, help=about.help, help_behavior_hint=None if shown is None else f"(default: {shown})"
    )
    annotated: Any = Annotated[kind, annotation]
    if optional and plain is bool:
        annotated = Annotated[annotated, _SWITCH]
    elif set(kinds) == {bool, Path}:
        annotated = Annotated[annotated, _SWITCH_OR_PATH]
    return Annotated[annotated, tyro.conf.Positional] if about.positional else annotated


def _switch(words: Sequence[str]) -> bool:
    if list(words) not in ([], ["True"], ["False"]):
        raise ValueError(f"expected True, False or nothing, which is True, but got {' '.join(words)}")
    return list(words) != ["False"]


# A switch that may be left open, for the preset to decide: tyro knows switches with two positions alone.
_SWITCH = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[{True,False}]",
    instance_from_str=_switch,
    is_instance=lambda value: value is None or isinstance(value, bool),
    str_from_instance=lambda value: [str(value)],
)


def _switch_or_path(words: Sequence[str]) -> bool | Path:
    if len(words) > 1:
        raise ValueError(f"expected one folder or nothing, but got {' '.join(words)}")
    if words and words[0] not in ("True", "False"):
        return Path(words[0])
    return list(words) != ["False"]


_SWITCH_OR_PATH = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[DIR]",
    instance_from_str=_switch_or_path,
    is_instance=lambda value: isinstance(value, bool | Path),
    str_from_instance=lambda value: [str(value)],
)
