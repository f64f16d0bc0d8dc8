"""Early ends of a run: a signal, a limit, a test loss that no longer improves, a callback."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from .checkpoint.best import Best
from .config import TrainConfig
from .distributed.world import World


class Interrupt:
    """Ctrl-C and SIGTERM as a wish to stop: while entered, they only set ``signal``, which the loop reads after a step.

    A second signal changes nothing: the launcher sends several, and the checkpoint is being written.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        # Python lets the main thread alone set handlers: a run in another thread is not stopped by signals.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = self.signal or number


class Stopping:
    """Decides, alike on every rank, whether a run ends.

    Several ranks agree only at steps that are due for a log, where ``is_log_step`` is true: these calls are collective.

    Args:
        config: its limits: ``max_steps``, ``time_budget``, ``patience``.
        world: the ranks.
        interrupt: the signals of this process.
    """

    def __init__(self, config: TrainConfig, world: World, interrupt: Interrupt) -> None:
        self._config = config
        self._world = world
        self._interrupt = interrupt
        self.deadline = float("inf")
        if config.time_budget is not None:
            self.deadline = time.monotonic() + config.time_budget
        self.by_signal = False
        self.by_callback = False

    def ends_after(self, step: int, *, is_log_step: bool) -> bool:
        """Return whether a signal (then ``by_signal`` is set) or a limit ends the run after a step."""
        signalled = self._interrupt.signal is not None
        self.by_signal = signalled if self._world.size == 1 else is_log_step and self._world.any(signalled)
        return self.by_signal or self.is_spent(step, is_log_step=is_log_step)

    def is_spent(self, step: int, *, is_log_step: bool) -> bool:
        """Return whether --max-steps or --time-budget is used up."""
        if self._config.max_steps is not None and step >= self._config.max_steps:
            return True
        if self._config.time_budget is None:
            return False
        over = time.monotonic() > self.deadline
        return over if self._world.size == 1 else is_log_step and self._world.any(over)

    def is_stale(self, epoch: int, best: Best) -> bool:
        """Return whether the test loss has not improved for ``patience`` epochs."""
        return self._config.patience is not None and epoch - best.epoch >= self._config.patience

    @property
    def status(self) -> int:
        """The exit status of a run that a signal ended."""
        return 128 + (self._interrupt.signal or signal.SIGINT)

    def reason(self, step: int, epoch: int, epoch_steps: int, best: Best) -> str:
        """Say what ended a run in or after an epoch that is not its last."""
        if self.is_stale(epoch, best):
            return f"no better test loss for {self._config.patience} epochs: the best is that of epoch {best.epoch}"
        if self.by_callback:
            return f"ended by a callback after epoch {epoch}"
        limit = "--max-steps" if step == self._config.max_steps else "--time-budget"
        where = f"after epoch {epoch}" if step == epoch * epoch_steps else f"in epoch {epoch + 1}"
        return f"ended by {limit} at step {step}, {where}"
