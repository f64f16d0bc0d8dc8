"""Configurations of a run in progress, in which nothing is left open."""

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from .config import TrainConfig
from .model import BetaSchedule
from .optimisation import RateSchedule

SettledPrecision = Literal["fp32", "bf16", "fp16", "fp64"]
SettledExecution = Literal["eager", "traced", "compiled"]
Config = TypeVar("Config", bound=TrainConfig)


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(TrainConfig):
    """Settings with the preset's values filled in and all values checked, as :func:`resolve` returns them.

    What stays None is off or does not apply: no clipping, no --capacity for another objective.
    """

    batch_size: int
    lr: float
    optimizer: str
    schedule: RateSchedule
    beta_schedule: BetaSchedule
    latent_dim: int
    binarize: bool
    epochs: int

    def steps(self, epoch_steps: int) -> int:
        """Return the steps of the whole run, for so many in an epoch."""
        steps = self.epochs * epoch_steps
        return steps if self.max_steps is None else min(steps, self.max_steps)


@dataclass(frozen=True, kw_only=True)
class SettledConfig(ResolvedConfig):
    """Resolved settings with a precision and an execution in place of "auto", as an engine takes them."""

    precision: SettledPrecision
    execution: SettledExecution


def settle(config: ResolvedConfig, precision: SettledPrecision, execution: SettledExecution) -> SettledConfig:
    """Return the configuration with precision and execution decided."""
    return converted(config, SettledConfig, precision=precision, execution=execution)


def converted(config: TrainConfig, cls: type[Config], **changes: Any) -> Config:
    """Return the settings as an instance of another class, some of them changed."""
    return cls(**{field.name: getattr(config, field.name) for field in fields(config)} | changes)
