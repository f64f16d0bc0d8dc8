"""From the settings that a user gave to those that a run has: the preset's values filled in, everything checked."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastvae.train.optim.build import check_optimizer
from fastvae.utils.errors import InputError

from .config import WITH_BETA, TrainConfig
from .validate import (
    check_counts,
    check_images,
    check_numbers,
    check_objective,
    check_parallel,
    check_schedules,
    check_types,
)


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill in the preset's values and check ranges. Raises InputError naming the flag, its value and the remedy."""
    check_types(config)
    recipe = config.recipe
    optimizer = (config.optimizer or recipe.optimizer).lower()
    options = {**(recipe.optimizer_options if optimizer == recipe.optimizer else {}), **config.optimizer_options}
    config = replace(
        config,
        epochs=recipe.epochs if config.epochs is None else config.epochs,
        batch_size=recipe.batch_size if config.batch_size is None else config.batch_size,
        lr=recipe.lr if config.lr is None else config.lr,
        latent_dim=recipe.latent_dim if config.latent_dim is None else config.latent_dim,
        width=recipe.width if config.width is None else config.width,
        image_size=recipe.image_size if config.image_size is None else config.image_size,
        optimizer=optimizer,
        optimizer_options=options,
        schedule=config.schedule or recipe.schedule,
        **_of_beta(config),
        binarize=recipe.binarize if config.binarize is None else config.binarize,
        # From Python they may be strings.
        out=None if config.out is None else Path(config.out),
        cache=None if config.cache is None else Path(config.cache),
    )
    check_counts(config)
    check_images(config)
    check_schedules(config)
    check_objective(config)
    check_parallel(config)
    if not 0 <= config.seed < 2**63:
        raise InputError(f"--seed is {config.seed}: it must be in [0, 2**63)")
    check_numbers(config)
    assert config.lr is not None
    check_optimizer(optimizer, options, config.lr)
    if config.resume and config.out is None:
        raise InputError("--resume needs the folder of the run to go on with: add --out DIR")
    if config.max_restarts and config.out is None:
        raise InputError(f"--max-restarts {config.max_restarts} needs a folder to go on from: add --out DIR")
    if config.device == "cuda" and config.backend == "native":
        raise InputError(f"--backend native runs on the CPU, but --device is {config.device}: use --backend auto")
    if config.backend == "triton" and config.device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise InputError("--backend triton needs a GPU, but --device is cpu: use --backend auto")
    return config


def _of_beta(config: TrainConfig) -> dict[str, Any]:
    """The schedule of beta: as asked for, else the preset's warm-up, where the objective has a beta."""
    steps = config.recipe.beta_warmup
    if config.beta_schedule is not None or steps is None or config.objective not in WITH_BETA:
        return {"beta_schedule": config.beta_schedule or "constant"}
    return {"beta_schedule": "warmup", "beta_steps": config.beta_steps or steps}
