"""The declaration of a setting, and the questions that can be put to it."""

import copy
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_type_hints

T = TypeVar("T")
REQUIRED: Any = object()  # the default of a setting without one
FROM_PRESET = "from the preset"  # shown as the default of a setting that the preset decides
_KEY = "fastvae.setting"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything about a setting except its name, its type and its default, which its dataclass field has.

    help: a sentence that can be understood without the flag's name beside it.
    group: the theme under which ``--help`` shows the flag; None stands above all groups.
    metavar: the placeholder of the value in ``--help``; None derives one from the type.
    shown_default: the text in place of a default of None or of an empty collection, "no limit" for instance.
    choices: the allowed values, read at each use, so that a registry may be given as it is.
    positional: the value is given by its place on the command line, without a flag.
    low, high: the range. A whole number is at least ``low`` and below ``high``; a float is finite.
    exclusive: ``low`` itself is not allowed.
    example: a good value, shown where the range is violated.
    from_preset: where the user leaves it out, the preset's attribute of the same name is taken.
    fixes_numbers: the setting decides what a run computes; or a function of the configuration that says whether it
        does. Settings that change rounding alone (precision, backend, number of processes) are not marked: a run may
        resume on another machine.
    at_resume: what a change of the setting by ``--resume`` makes inexact, for the user. A setting that fixes numbers
        and has no such text cannot be changed.
    kept: why ``--resume`` cannot change it, for the user.
    of_each_start: the setting is about one start of a run: ``--resume`` does not take it over from the run.
    affects_speed: the setting can change which way of running a step is the fastest: part of the key under which
        autotuning keeps its choice.
    decides_images: a saved run's images can be opened again by the settings marked so.
    describes_machine: the setting says where and how a run ran, not what it computed; a stored value may not suit the
        machine that reads it.
    """

    help: str
    group: str | None = None
    metavar: str | None = None
    shown_default: str | None = None
    choices: Iterable[Any] | Callable[[], Iterable[Any]] | None = None
    positional: bool = False
    low: float | None = None
    high: float | None = None
    exclusive: bool = False
    example: str | None = None
    from_preset: bool = False
    fixes_numbers: bool | Callable[[Any], bool] = False
    at_resume: str | None = None
    kept: str | None = None
    of_each_start: bool = False
    affects_speed: bool = False
    decides_images: bool = False
    describes_machine: bool = False

    def leaves_open(self, value: object) -> bool:
        """Return whether a value leaves the decision to the preset."""
        return value in (None, {}) and (self.from_preset or self.shown_default == FROM_PRESET)


Mark = Literal["from_preset", "fixes_numbers", "of_each_start", "affects_speed", "decides_images", "describes_machine"]


def setting(
    default: T,
    *,
    help: str,  # noqa: A002 -- as argparse and tyro name it
    group: str | None = None,
    metavar: str | None = None,
    shown_default: str | None = None,
    choices: Iterable[Any] | Callable[[], Iterable[Any]] | None = None,
    positional: bool = False,
    low: float | None = None,
    high: float | None = None,
    exclusive: bool = False,
    example: str | None = None,
    from_preset: bool = False,
    fixes_numbers: bool | Callable[[Any], bool] = False,
    at_resume: str | None = None,
    kept: str | None = None,
    of_each_start: bool = False,
    affects_speed: bool = False,
    decides_images: bool = False,
    describes_machine: bool = False,
) -> T:
    """Return a dataclass field with a default, described by :class:`Setting`.

    The declared return type is that of the default, as for :func:`dataclasses.field`, so that a type checker takes the
    field for an attribute with a default value.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class Walk:
    ...     steps: int = setting(7, help="Number of steps.", low=1, fixes_numbers=True)
    >>> Walk().steps, describe(Walk)["steps"].low, marked(Walk(), "fixes_numbers")
    (7, 1, ('steps',))
    """
    described = Setting(
        help=help, group=group, metavar=metavar, shown_default=shown_default, choices=choices, positional=positional,
        low=low, high=high, exclusive=exclusive, example=example, from_preset=from_preset, fixes_numbers=fixes_numbers,
        at_resume=at_resume, kept=kept, of_each_start=of_each_start, affects_speed=affects_speed,
        decides_images=decides_images, describes_machine=describes_machine,
    )  # fmt: skip
    metadata = {_KEY: described}
    field: Any
    if default is REQUIRED:
        field = dataclasses.field(metadata=metadata)
    elif isinstance(default, dict | list):
        field = dataclasses.field(default_factory=lambda: copy.copy(default), metadata=metadata)
    else:
        field = dataclasses.field(default=default, metadata=metadata)
    return field  # type: ignore[no-any-return]


def describe(cls: type) -> dict[str, Setting]:
    """Return each field of a settings class by name, in order.

    A subclass may narrow the type of a field by an annotation alone: the description is that of its base.

    Raises:
        TypeError: a field was not declared by :func:`setting`.
    """
    described = {}
    for field in dataclasses.fields(cls):
        for base in cls.__mro__:
            inherited = vars(base).get("__dataclass_fields__", {}).get(field.name)
            if inherited is not None and _KEY in inherited.metadata:
                described[field.name] = inherited.metadata[_KEY]
                break
        else:
            raise TypeError(f"{cls.__name__}.{field.name} is not declared by setting(...)")
    return described


def marked(config: Any, mark: Mark) -> tuple[str, ...]:
    """Return the names of the settings of a configuration (or of its class) that have a mark, in order."""
    cls = config if isinstance(config, type) else type(config)
    names = []
    for name, described in describe(cls).items():
        value = getattr(described, mark)
        if value(config) if callable(value) else value:
            names.append(name)
    return tuple(names)


def types_of(cls: type) -> dict[str, Any]:
    """Return the type of each setting; one with choices is a Literal of them."""
    types = get_type_hints(cls)
    literal: Any = Literal
    for name, described in describe(cls).items():
        if described.choices is not None:
            choices = described.choices() if callable(described.choices) else described.choices
            types[name] = literal[tuple(choices)]
    return {name: types[name] for name in describe(cls)}


def flag(name: str) -> str:
    """Return the flag of a setting.

    >>> flag("batch_size")
    '--batch-size'
    """
    return "--" + name.replace("_", "-")
