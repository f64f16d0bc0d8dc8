"""Checks of settings against each other; each raises InputError naming the flag, its value and the remedy.

The range of a single setting is part of its declaration, and :func:`fastvae.utils.settings.check_ranges` checks it.
"""

import math
from collections.abc import Sequence

from fastvae.models import OBJECTIVES
from fastvae.models.objective_specs import option_names
from fastvae.utils.errors import InputError
from fastvae.utils.machine import check_fits
from fastvae.utils.settings import flag

from .config import TrainConfig
from .resolved_config import ResolvedConfig

_TENSORS = 4  # of an image's size, at least: the input, the decoder's output, and two of their gradients


def check_batch(config: ResolvedConfig) -> None:
    """Check that each part of a batch has an image."""
    if config.accumulate > config.batch_size:
        raise InputError(
            f"--accumulate is {config.accumulate}, but a batch has {config.batch_size} images: "
            f"use at most --accumulate {config.batch_size}"
        )


def check_objective(config: TrainConfig) -> None:
    """Check that the settings of the objective are those that it takes, and all that it needs."""
    spec = OBJECTIVES[config.objective]
    for name in option_names():
        value = getattr(config, name)
        if value is not None and not spec.takes(name):
            raise InputError(f"{flag(name)} is {value}, but --objective {config.objective} has none: leave it out")
        if value is None and name in spec.needs:
            raise InputError(f"--objective {config.objective} needs {flag(name)} NATS: add it")
    if config.recipe.network == "ladder" and not spec.any_levels:
        raise InputError(
            f"preset {config.preset} has two levels of latents, but --objective {config.objective} takes one: "
            "use --objective elbo"
        )
    if not spec.takes("beta") and (config.beta != 1 or config.beta_schedule != "constant"):
        raise InputError(f"--objective {config.objective} has no beta, but --beta is {config.beta}: leave it out")


def check_images(config: TrainConfig) -> None:
    """Check that the images, what is done to them and the loader fit together."""
    if config.channels not in (1, 3):
        raise InputError(f"--channels is {config.channels}: pictures are read as 3 (RGB) or 1 (grey)")
    if config.crop == "random" and config.image_size is None:
        raise InputError("--crop random needs to know what is left of an image: add --image-size PIXELS")
    if config.loader == "dali" and config.cache is not None:
        raise InputError(
            f"--loader dali decodes pictures, but --cache {config.cache} has them decoded: leave one of them out"
        )
    if config.workers is not None and config.loader in ("resident", "dali"):
        raise InputError(f"--workers is {config.workers}, but --loader {config.loader} has none: leave it out")
    if config.recipe.network == "mlp" and config.width is not None:
        raise InputError(f"--width is {config.width}, but preset {config.preset} has no such width: leave it out")


def check_step_fits(config: ResolvedConfig, shape: Sequence[int], images: int, processes: int) -> None:
    """Check that a step's images and the decoder's output, in fp32, are no more than the machine's memory.

    Args:
        config: of the run.
        shape: (C, H, W) of an image.
        images: their number.
        processes: those that share a batch.
    """
    rows = max(1, min(config.batch_size, images) // config.accumulate // processes)
    if config.samples is None:
        what = f"a step on {rows} images of {' x '.join(map(str, shape))}"
        check_fits(rows * math.prod(shape) * 4 * _TENSORS, what, "give a smaller --batch-size or --image-size")
        return
    check_fits(
        rows * config.samples * math.prod(shape) * 4,
        f"--samples {config.samples}: the decoder's output for {rows} images",
        "give fewer --samples, a smaller --batch-size, or --accumulate the parts of a batch",
    )


def check_schedules(config: TrainConfig) -> None:
    """Check that a schedule with a length has one, and that a length and a decay have their schedule."""
    if config.decay is not None and config.schedule != "step":
        raise InputError(
            f"--decay is {config.decay}, but --schedule {config.schedule} has none: leave it out or add --schedule step"
        )
    _check_length("schedule", config.schedule, "decay_epochs", config.decay_epochs, config.schedule == "step")
    has_length = config.beta_schedule != "constant"
    _check_length("beta_schedule", config.beta_schedule, "beta_steps", config.beta_steps, has_length)


def _check_length(schedule: str, which: str | None, length: str, given: int | None, has_length: bool) -> None:
    if has_length and given is None:
        raise InputError(f"{flag(schedule)} {which} needs a length: add {flag(length)} N")
    if given is not None and not has_length:
        raise InputError(f"{flag(length)} is {given}, but {flag(schedule)} {which} has no such length: leave it out")


def check_parallel(config: TrainConfig) -> None:
    """Check that --parallel fsdp comes without settings that need all weights in one process."""
    if config.parallel != "fsdp":
        return
    for name, value, remedy in (
        ("execution", config.execution if config.execution in ("traced", "compiled") else None, "--execution eager"),
        ("precision", config.precision if config.precision == "fp16" else None, "--precision bf16"),
        ("ema", config.ema, "--parallel ddp"),
        # Adafactor's means over rows and columns need whole matrices.
        ("optimizer", config.optimizer if config.optimizer == "adafactor" else None, "--parallel ddp"),
        ("profile", config.profile or None, "--parallel ddp"),
    ):
        if value is not None:
            raise InputError(f"--parallel fsdp does not go with {flag(name)} {value}: use {remedy}")
