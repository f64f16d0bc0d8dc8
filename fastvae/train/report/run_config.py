"""The config.json of a run: its settings, its data, and the machine that it was started on."""

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fastvae.data import Dataset
from fastvae.data.datasets.load import located
from fastvae.train.checkpoint.schema import Description, check
from fastvae.train.config import TrainConfig
from fastvae.train.config.stored_settings import check_settings
from fastvae.train.distributed.world import World
from fastvae.utils.errors import InputError
from fastvae.utils.files import read_json, reason
from fastvae.utils.machine import device_name
from fastvae.utils.version import __version__

CONFIG = "config.json"
CONFIG_LIMIT = 64 << 20  # bytes; none comes near it


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.json of a run. Raises InputError if it cannot be read or its settings are not valid."""
    file = path / CONFIG
    try:
        content = read_json(file)
    except FileNotFoundError as error:
        raise InputError(f"{path} holds no run (no {file.name} in it): name the folder of one") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read as a run's settings ({reason(error)}): name the folder of a run"
        ) from error
    description = check(content, Description, str(file))
    return {**description, "settings": check_settings(description["settings"], str(file))}


def description_of(
    config: TrainConfig,
    dataset: Dataset,
    world: World,
    *,
    own_model: bool = False,
    own_data: bool = False,
    fingerprint: str | None = None,
    changes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the content of config.json.

    Args:
        config: the settings. Paths become absolute, as the next command may be started elsewhere.
        dataset: the images. fingerprint: that of their content.
        world: the ranks.
        own_model, own_data: whether the caller brought them.
        changes: the settings that were changed when the run was resumed: the step, and the values before and after.
    """
    settings = {name: _plain(value) for name, value in dataclasses.asdict(config).items()}
    if not own_data:
        data_or_path = located(config.data)
        settings["data"] = data_or_path
        folder = os.environ.get("FASTVAE_DATA")
        if config.data_dir is None and folder and not os.path.isabs(data_or_path):  # the next shell may lack it
            settings["data_dir"] = os.path.abspath(folder)
    data = {"shape": list(dataset.shape), "train": len(dataset.train), "test": len(dataset.test)}
    return {
        "settings": settings,
        "data": data if fingerprint is None else {**data, "fingerprint": fingerprint},
        "own_model": own_model,
        "changes": list(changes),
        "world_size": world.size,
        "agent": agent(),
        "device": device_name(world.device),
        "versions": {
            "fastvae": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def agent() -> str | None:
    """Return a unique name of the elastic agent (torchrun's or our own) that started this process; None without one.

    The run id alone is not unique: torchrun's is "none" if the user gave none.
    """
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    parent = os.getppid()
    if run is None:
        return None
    try:
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]  # field 22, starttime
    except OSError:
        began = "some time"
    return f"{run}, process {parent} of {platform.node()} since {began}"


def _plain(value: object) -> object:
    return os.path.abspath(os.path.expanduser(value)) if isinstance(value, Path) else value
