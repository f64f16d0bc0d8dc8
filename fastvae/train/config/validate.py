"""The ranges of a run's settings: each check raises InputError naming the flag, its value and the remedy."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

from typeguard import TypeCheckError, check_type

from fastvae.utils.errors import InputError

from .config import SAMPLED, WITH_BETA, TrainConfig

_COUNTS = (
    "epochs", "max_steps", "patience", "batch_size", "accumulate", "latent_dim", "checkpoint_every", "warmup_steps",
    "decay_epochs", "beta_steps", "capacity_steps", "samples", "max_restarts", "image_size", "width", "workers",
)  # fmt: skip
_MOST = 1 << 48  # what is larger counts nothing that a machine could hold or do


def check_types(config: TrainConfig) -> None:
    """Each setting is of its type, and a choice is one of those there are: from Python, nobody has looked yet."""
    for name, kind in get_type_hints(type(config)).items():
        value, flag = getattr(config, name), "--" + name.replace("_", "-")
        kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        choices = [choice for each in kinds if get_origin(each) is Literal for choice in get_args(each)]
        if choices:
            if value not in choices and not (value is None and NoneType in kinds):
                raise InputError(f"{flag} is {value!r}: use one of {', '.join(choices)}")
            continue
        try:
            check_type(value, Union[kind, str] if Path in kinds else kind)  # noqa: UP007 -- of types in variables
        except TypeCheckError as error:
            raise InputError(f"{flag} is {value!r}, which is the wrong type ({error}): give another value") from error


def check_counts(config: TrainConfig) -> None:
    """What is counted is 1 or more, or for some 0."""
    least = {"warmup_steps": 0, "max_restarts": 0, "workers": 0}
    for flag in _COUNTS:
        value, low = getattr(config, flag), least.get(flag, 1)
        if value is not None and value < low:
            raise InputError(f"--{flag.replace('_', '-')} is {value}: it must be at least {low}")
        if value is not None and value >= _MOST:
            raise InputError(f"--{flag.replace('_', '-')} is {value}: it must be below 2**48")


def check_numbers(config: TrainConfig) -> None:
    """What is measured is finite and above 0, or for beta 0 or more."""
    for flag in ("lr", "decay", "clip_norm", "time_budget", "beta"):
        value, low = getattr(config, flag), "0 or more" if flag == "beta" else "above 0"
        if value is not None and (not (value > 0 or (value == 0 and flag == "beta")) or value == float("inf")):
            raise InputError(f"--{flag.replace('_', '-')} is {value}: it must be a finite number, {low}")
    if config.ema is not None and not 0 <= config.ema < 1:
        raise InputError(f"--ema is {config.ema}: it must be in [0, 1), 0.999 say")
    assert config.batch_size is not None
    if config.accumulate > config.batch_size:
        raise InputError(
            f"--accumulate is {config.accumulate}, but a batch has {config.batch_size} images: "
            f"use at most --accumulate {config.batch_size}"
        )


def check_objective(config: TrainConfig) -> None:
    """An objective has the flags that it needs, and no others."""
    for name, whose, needed in (
        ("samples", SAMPLED, False),
        ("free_bits", ("free-bits",), True),
        ("capacity", ("capacity",), True),
        ("capacity_steps", ("capacity",), False),
    ):
        value, flag = getattr(config, name), "--" + name.replace("_", "-")
        if value is not None and config.objective not in whose:
            raise InputError(f"{flag} is {value}, but --objective {config.objective} has none: leave it out")
        if value is None and needed and config.objective in whose:
            raise InputError(f"--objective {config.objective} needs {flag} NATS: add it")
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(f"{flag} is {value}: it must be a finite number, 0 or more")
    if config.recipe.network == "ladder" and config.objective != "elbo":
        raise InputError(
            f"preset {config.preset} has two levels of latents, which --objective {config.objective} does not know: "
            "use --objective elbo"
        )
    if config.objective not in WITH_BETA and (config.beta != 1 or config.beta_schedule != "constant"):
        raise InputError(f"--objective {config.objective} has no beta, but --beta is {config.beta}: leave it out")


def check_images(config: TrainConfig) -> None:
    """What is read, and by what, fits together."""
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
    mlp = config.recipe.network == "mlp"
    if mlp and config.width is not None:
        raise InputError(f"--width is {config.width}, but preset {config.preset} has no such width: leave it out")


def check_schedules(config: TrainConfig) -> None:
    """A length goes with a schedule that has one, and so does a decay."""
    if config.decay is not None and config.schedule != "step":
        raise InputError(
            f"--decay is {config.decay}, but --schedule {config.schedule} has none: leave it out or add --schedule step"
        )
    for flag, length, which, has_length in (
        ("--schedule", "decay_epochs", config.schedule, config.schedule == "step"),
        ("--beta-schedule", "beta_steps", config.beta_schedule, config.beta_schedule != "constant"),
    ):
        given, name = getattr(config, length), "--" + length.replace("_", "-")
        if has_length and given is None:
            raise InputError(f"{flag} {which} needs a length: add {name} N")
        if given is not None and not has_length:
            raise InputError(f"{name} is {given}, but {flag} {which} has no such length: leave it out")


def check_parallel(config: TrainConfig) -> None:
    """Parts of weights go without what needs all of them at once."""
    if config.parallel != "fsdp":
        return
    for flag, value, remedy in (
        ("execution", config.execution if config.execution in ("traced", "compiled") else None, "--execution eager"),
        ("precision", config.precision if config.precision == "fp16" else None, "--precision bf16"),
        ("ema", config.ema, "--parallel ddp"),
        # Its means over rows and columns need whole matrices.
        ("optimizer", config.optimizer if config.optimizer == "adafactor" else None, "--parallel ddp"),
        ("profile", config.profile or None, "--parallel ddp"),
    ):
        if value is not None:
            raise InputError(f"--parallel fsdp does not go with --{flag} {value}: use {remedy}")
