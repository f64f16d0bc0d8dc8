"""The settings that a run's config.json has, which may be somebody else's."""

from typing import Any, get_args, get_type_hints

from fastvae.train.checkpoint.schema import check
from fastvae.utils.errors import InputError

from .config import TrainConfig
from .resolve import resolve

# In JSON, paths are text.
_SETTINGS = {**get_type_hints(TrainConfig), **dict.fromkeys(("data_dir", "cache", "out"), str | None)}
_ALWAYS = ("preset", "data", "latent_dim", "seed")
# These say where and how a run ran, not what it computed.
_CIRCUMSTANCES = {"data_dir", "cache", "out", "resume", "nproc", "max_restarts", "device", "backend"}


def check_settings(settings: dict[str, Any], label: str) -> dict[str, Any]:
    """A run's settings, as ``config.json`` has them; names that this version does not know are left out.

    Older versions kept fewer, but always the preset, the data, the latent dimensions and the seed.

    Raises:
        InputError: a setting has another type, or a value that the command line would refuse, too.
    """
    for name in _ALWAYS:
        if name not in settings:
            raise InputError(f"{label} has no {name} among its settings: use another run")
    known = {
        name: check(value, _SETTINGS[name], f"{label}: {name}") for name, value in settings.items() if name in _SETTINGS
    }
    for name, value in known.items():
        if isinstance(value, bool) and bool not in (_SETTINGS[name], *get_args(_SETTINGS[name])):
            raise InputError(f"{label}: {name} is {value}, which is no number or text: use another run")
    try:
        resolve(TrainConfig(**{name: value for name, value in known.items() if name not in _CIRCUMSTANCES}))
    except InputError as error:
        raise InputError(f"{label} has a setting that no run can have had: {error}") from error
    return known
