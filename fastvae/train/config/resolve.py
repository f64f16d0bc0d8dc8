"""Resolution of the settings that a user gave: the preset's values filled in, everything checked."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastvae.models import OBJECTIVES
from fastvae.train.optim.build import check_optimizer
from fastvae.utils.errors import InputError
from fastvae.utils.settings import check_ranges, check_types, marked

from .config import TrainConfig
from .resolved_config import ResolvedConfig, converted
from .validate import check_batch, check_images, check_objective, check_parallel, check_schedules


def resolve(config: TrainConfig) -> ResolvedConfig:
    """Fill in the preset's values and check everything.

    Raises:
        InputError: naming the flag, its value and the remedy.
    """
    check_types(config)
    resolved = _filled_in(config)
    check_ranges(resolved)
    check_batch(resolved)
    check_images(resolved)
    check_schedules(resolved)
    check_objective(resolved)
    check_parallel(resolved)
    check_optimizer(resolved.optimizer, resolved.optimizer_options, resolved.lr)
    _check_folder(resolved)
    _check_backend(resolved)
    return resolved


def _filled_in(config: TrainConfig) -> ResolvedConfig:
    recipe = config.recipe
    optimizer = (config.optimizer or recipe.optimizer).lower()
    options = recipe.optimizer_options if optimizer == recipe.optimizer else {}
    names = [name for name in marked(config, "from_preset") if getattr(config, name) is None]
    config = replace(config, **{name: getattr(recipe, name) for name in names})
    return converted(
        config,
        ResolvedConfig,
        optimizer=optimizer,
        optimizer_options={**options, **config.optimizer_options},
        # Paths given from Python may be strings.
        out=None if config.out is None else Path(config.out),
        cache=None if config.cache is None else Path(config.cache),
        **_beta_schedule(config),
    )


def _beta_schedule(config: TrainConfig) -> dict[str, Any]:
    """Return the schedule of beta: as asked for, else the preset's warm-up if the objective has a beta."""
    steps = config.recipe.beta_warmup
    if config.beta_schedule is not None or steps is None or not OBJECTIVES[config.objective].takes("beta"):
        return {"beta_schedule": config.beta_schedule or "constant"}
    return {"beta_schedule": "warmup", "beta_steps": config.beta_steps or steps}


def _check_folder(config: TrainConfig) -> None:
    """Check that a run that resumes, or may restart, names its folder."""
    if config.resume and config.out is None:
        raise InputError("--resume needs the folder of the run to resume: add --out DIR")
    if config.max_restarts and config.out is None:
        raise InputError(f"--max-restarts {config.max_restarts} needs a folder to resume from: add --out DIR")


def _check_backend(config: TrainConfig) -> None:
    """Check that the backend can run on the device."""
    if config.device == "cuda" and config.backend == "native":
        raise InputError(f"--backend native runs on the CPU, but --device is {config.device}: use --backend auto")
    if config.backend == "triton" and config.device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise InputError("--backend triton needs a GPU, but --device is cpu: use --backend auto")
