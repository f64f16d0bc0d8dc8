"""Configurations of a run in progress, in which nothing is left open."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from fastvae.utils.settings import changed

from .config import TrainConfig
from .model import BetaSchedule
from .optimisation import RateSchedule

SettledPrecision = Literal["fp32", "bf16", "fp16", "fp64"]
SettledExecution = Literal["eager", "traced", "compiled"]


class Origin(NamedTuple):
    """The epoch from which on every epoch has the same number of steps, and the first step of that epoch.

    A run begins at (0, 0). Where it resumes with another batch size, its origin moves to the epoch then running, whose
    first step is the one that epoch would have begun at with the new batch size, which may be negative.
    """

    epoch: int = 0
    step: int = 0

    def first_step(self, epoch: int, epoch_steps: int) -> int:
        """Return the number of steps before an epoch, for so many steps in each."""
        return self.step + (epoch - self.epoch) * epoch_steps

    def place(self, step: int, epoch_steps: int) -> tuple[int, int]:
        """Return the epoch that a step is in, and the step's number in it."""
        epochs, done = divmod(step - self.step, epoch_steps)
        return self.epoch + epochs, done


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(TrainConfig):
    """Settings with the preset's values filled in and all values checked, as :func:`resolve` returns them.

    A setting that stays None is off or does not apply: no clipping, no --capacity for another objective.
    """

    batch_size: int
    lr: float
    optimizer: str
    schedule: RateSchedule
    beta_schedule: BetaSchedule
    latent_dim: int
    binarize: bool
    epochs: int
    resume: bool

    def steps(self, epoch_steps: int, origin: Origin = Origin()) -> int:  # noqa: B008 -- a named tuple
        """Return the steps of the whole run, for so many in an epoch."""
        steps = origin.first_step(self.epochs, epoch_steps)
        return steps if self.max_steps is None else min(steps, self.max_steps)


@dataclass(frozen=True, kw_only=True)
class SettledConfig(ResolvedConfig):
    """Resolved settings with a precision and an execution in place of "auto", as an engine takes them."""

    precision: SettledPrecision
    execution: SettledExecution


def settle(config: ResolvedConfig, precision: SettledPrecision, execution: SettledExecution) -> SettledConfig:
    """Return the configuration with precision and execution decided."""
    return changed(config, SettledConfig, precision=precision, execution=execution)
