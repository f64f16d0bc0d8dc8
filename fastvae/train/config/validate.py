"""Checks of settings against each other; each raises InputError naming the flag, its value and the remedy.

The range of a single setting is part of its declaration, and :func:`fastvae.utils.settings.check_ranges` checks it.
"""

import math
from collections.abc import Sequence

from fastvae.models import OBJECTIVES, PRESETS
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
            raise InputError(
                f"{flag(name)} is {value}, but --objective {config.objective} has none: "
                + _other_objective(config, name)
            )
        if value is None and name in spec.needs:
            raise InputError(f"--objective {config.objective} needs {flag(name)} NATS: add it")
    if config.recipe.network == "ladder" and not spec.any_levels:
        raise InputError(
            f"preset {config.preset} has two levels of latents, but --objective {config.objective} takes one: "
            "use --objective elbo"
        )
    if not spec.takes("beta"):
        for name, none in (("beta", 1), ("beta_schedule", "constant"), ("beta_steps", None)):
            value = getattr(config, name)
            if value != none:
                raise InputError(
                    f"--objective {config.objective} has no beta, but {flag(name)} is {value}: leave {flag(name)} out, "
                    "or use --objective elbo"
                )


def _other_objective(config: TrainConfig, name: str) -> str:
    """Return the remedy for a setting that the objective does not take: objectives that take it, with their needs."""
    ladder = config.recipe.network == "ladder"
    specs = {key: spec for key, spec in OBJECTIVES.items() if spec.takes(name) and (spec.any_levels or not ladder)}
    if not specs:
        return "leave it out"
    first, *others = specs
    more = f" (or {', '.join(others)})" if others else ""
    needs = [flag(each) for each in specs[first].needs if each != name and getattr(config, each) is None]
    added = "".join(f" and add {each} NATS" for each in needs)
    return f"use --objective {first}{more}{added}, or leave {flag(name)} out"


def check_images(config: TrainConfig) -> None:
    """Check that the images, what is done to them and the loader fit together."""
    if config.channels not in (1, 3):
        raise InputError(f"--channels is {config.channels}: use --channels 3 (RGB) or --channels 1 (grey)")
    if config.crop == "random" and config.image_size is None:
        raise InputError("--crop random needs to know what is left of an image: add --image-size PIXELS")
    if config.loader == "dali" and config.cache is not None:
        raise InputError(
            f"--loader dali decodes pictures, but --cache {config.cache} has them decoded: "
            "leave --cache out, or use --loader torch"
        )
    if config.workers is not None and config.loader in ("resident", "dali"):
        raise InputError(
            f"--workers is {config.workers}, but --loader {config.loader} has none: use --loader torch, or leave "
            "--workers out"
        )
    if config.recipe.network == "mlp" and config.width is not None:
        wide = ", ".join(name for name, preset in PRESETS.items() if preset.network != "mlp")
        raise InputError(
            f"--width is {config.width}, but --preset {config.preset} has no such width: leave it out, or use a preset "
            f"for pictures ({wide})"
        )


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
    has_steps = config.schedule == "step"
    if config.decay is not None and not has_steps:
        length = "" if config.decay_epochs is not None else " and add --decay-epochs N"
        raise InputError(
            f"--decay is {config.decay}, but --schedule {config.schedule} has none: use --schedule step{length}, or "
            "leave --decay out"
        )
    _check_length("schedule", config.schedule, "decay_epochs", config.decay_epochs, "step", has_length=has_steps)
    has_cycle = config.beta_schedule != "constant"
    _check_length(
        "beta_schedule", config.beta_schedule, "beta_steps", config.beta_steps, "warmup", has_length=has_cycle
    )


def _check_length(
    schedule: str, which: str | None, length: str, given: int | None, other: str, *, has_length: bool
) -> None:
    """Check that the length of a schedule is given if it has one; ``other`` is a schedule that has."""
    if has_length and given is None:
        raise InputError(f"{flag(schedule)} {which} needs a length: add {flag(length)} N")
    if given is not None and not has_length:
        raise InputError(
            f"{flag(length)} is {given}, but {flag(schedule)} {which} has no such length: "
            f"use {flag(schedule)} {other}, or leave {flag(length)} out"
        )


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
