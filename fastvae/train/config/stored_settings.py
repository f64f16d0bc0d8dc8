"""The settings in a run's config.json, which may come from somebody else."""

from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from fastvae.train.checkpoint.schema import check
from fastvae.utils.errors import InputError
from fastvae.utils.settings import marked, types_of

from .config import TrainConfig
from .resolve import resolve

_ALWAYS = ("preset", "data", "latent_dim", "seed")  # stored by every version of fastvae so far


def check_settings(settings: dict[str, Any], label: str) -> dict[str, Any]:
    """Return a run's settings as ``config.json`` has them, without names that this version does not know.

    Older versions stored fewer settings, but always the preset, the data, the latent dimensions and the seed.

    Raises:
        InputError: a setting has another type, or a value that the command line would refuse, too.
    """
    for name in _ALWAYS:
        if name not in settings:
            raise InputError(f"{label} has no {name} among its settings: use another run")
    types = {name: _stored(kind) for name, kind in types_of(TrainConfig).items()}
    known = {name: check(value, types[name], f"{label}: {name}") for name, value in settings.items() if name in types}
    for name, value in known.items():
        if isinstance(value, bool) and bool not in (types[name], *get_args(types[name])):
            raise InputError(f"{label}: {name} is {value}, which is neither a number nor text: use another run")
    elsewhere = marked(TrainConfig, "describes_machine")
    try:
        resolve(TrainConfig(**{name: value for name, value in known.items() if name not in elsewhere}))
    except InputError as error:
        raise InputError(f"{label} has a setting that no run can have had: {error}") from error
    return known


def _stored(kind: Any) -> Any:
    """Return the type of a setting in JSON, where a path is text."""
    if get_origin(kind) not in (Union, UnionType):
        return str if kind is Path else kind
    union: Any = Union
    return union[tuple(str if each is Path else each for each in get_args(kind))]
