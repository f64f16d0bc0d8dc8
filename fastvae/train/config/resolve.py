"""Resolution of the settings that a user gave: the preset's values filled in, everything checked."""

import os
from pathlib import Path
from typing import Any

from fastvae.models import OBJECTIVES
from fastvae.utils.errors import InputError
from fastvae.utils.settings import changed, check_ranges, check_types, in_words_of_caller, marked

from .config import TrainConfig
from .resolved_config import ResolvedConfig
from .validate import check_batch, check_images, check_objective, check_parallel, check_schedules


@in_words_of_caller(TrainConfig)
def resolve(config: TrainConfig) -> ResolvedConfig:
    """Fill in the preset's values and check everything.

    Raises:
        InputError: naming the setting, its value and the remedy.
    """
    check_types(config)
    resolved = _filled_in(with_folder(config))
    check_ranges(resolved)
    check_batch(resolved)
    check_images(resolved)
    check_objective(resolved)
    check_schedules(resolved)
    check_parallel(resolved)
    _check_folder(resolved)
    _check_backend(resolved)
    from fastvae.train.optim.build import check_optimizer  # noqa: PLC0415 -- torch comes with it: the last to be checked

    check_optimizer(resolved.optimizer, resolved.optimizer_options, resolved.lr)
    return resolved


def with_folder(config: TrainConfig) -> TrainConfig:
    """Return the settings with the folder of the run in ``out`` alone: ``resume`` may name it, too."""
    out = config.out
    if out is not None and not str(out):
        raise InputError("--out is empty: give the folder that the run writes to, or leave it out")
    if isinstance(config.resume, bool):
        return config
    if out is not None and Path(out) != Path(config.resume):
        raise InputError(f"--resume is {config.resume}, but --out is {out}: give one of them")
    return changed(config, type(config), given=["out"], resume=True, out=Path(config.resume))


def _filled_in(config: TrainConfig) -> ResolvedConfig:
    recipe = config.recipe
    optimizer = (config.optimizer or recipe.optimizer).lower()
    options = recipe.optimizer_options if optimizer == recipe.optimizer else {}
    names = [name for name in marked(config, "from_preset") if getattr(config, name) is None]
    config = changed(config, type(config), **{name: getattr(recipe, name) for name in names})
    return changed(
        config,
        ResolvedConfig,
        optimizer=optimizer,
        optimizer_options={**options, **config.optimizer_options},
        out=_path(config.out),
        cache=_path(config.cache),
        init_from=_path(config.init_from),
        **_beta_schedule(config),
    )


def _path(given: str | Path | None) -> Path | None:
    """Return a path, which a caller in Python may give as text, with ~ for a home."""
    return None if given is None else Path(os.path.expanduser(given))


def _beta_schedule(config: TrainConfig) -> dict[str, Any]:
    """Return the schedule of beta: as asked for, else the preset's warm-up if the objective has a beta."""
    steps = config.recipe.beta_warmup
    if config.beta_schedule is not None or steps is None or not OBJECTIVES[config.objective].takes("beta"):
        return {"beta_schedule": config.beta_schedule or "constant"}
    return {"beta_schedule": "warmup", "beta_steps": config.beta_steps or steps}


def _check_folder(config: TrainConfig) -> None:
    """Check that a run that resumes, or may restart, names its folder, and begins in one way."""
    if config.resume and config.out is None:
        raise InputError("--resume needs the folder of the run to resume: add --out DIR")
    if config.resume and config.init_from is not None and "init_from" in config.given:
        raise InputError(
            f"--init-from {config.init_from} starts a new run, but --resume goes on with {config.out}: leave one out"
        )
    if config.max_restarts and config.out is None:
        raise InputError(f"--max-restarts {config.max_restarts} needs a folder to resume from: add --out DIR")


def _check_backend(config: TrainConfig) -> None:
    """Check that the backend can run on the device."""
    if config.device == "cuda" and config.backend == "native":
        raise InputError(f"--backend native runs on the CPU, but --device is {config.device}: use --backend auto")
    if config.backend == "triton" and config.device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise InputError("--backend triton needs a GPU, but --device is cpu: use --backend auto")
