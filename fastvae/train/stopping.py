"""Early ends of a run: a signal, a limit, a test loss that no longer improves, a callback."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from fastvae._command import STOPS, exit_at_once
from fastvae.utils.settings import as_typed

from .config import TrainConfig

if TYPE_CHECKING:
    from fastvae.data import Batch

    from .checkpoint.best import Best
    from .distributed.world import World

_UNWINDING = 3.0  # seconds that the program has for its ending; a signal after them ends it at once
_ASK_EVERY = 2.0  # seconds between two agreements of the ranks, which have 25 s for their ending
_MOST_STEPS = 50  # between two agreements: each waits for the device


class Stopped(KeyboardInterrupt):
    """The end of the program by a signal, raised where nothing has to be saved.

    signal: its number.
    has_trained: a step was taken before.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number
        self.has_trained = False


def stop_told(number: int, step: int, how_to_resume: str = "") -> str:
    """Return the line about a run that a signal ended after ``step`` steps."""
    told = f"stopped by {signal.Signals(number).name}"
    if step == 0:
        return f"{told} before the first step: nothing was trained, and nothing of this start is kept"
    return f"{told} at step {step}, nothing is lost: go on with {how_to_resume}"


@contextmanager
def stops_raised() -> Iterator[None]:
    """Raise :class:`Stopped` in the main thread at Ctrl-C, SIGTERM or SIGHUP, so that the program clears up as it ends.

    A signal that is ignored stays so. Further signals are dropped for some seconds, since a launcher sends several;
    after that they end the process at once, as the first does before torch is loaded. In a command, what comes after
    the context is its exit: no signal interrupts that.
    """
    began: list[float] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if _is_torch_coming():
            os._exit(128 + number)
        now = time.monotonic()
        if not began:
            began.append(now)
            raise Stopped(number)
        if now > began[0] + _UNWINDING:
            os._exit(128 + number)

    previous = _handle_stops(stop, [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN])
    try:
        yield
    finally:
        _restore({number: signal.SIG_IGN if was is exit_at_once else was for number, was in previous.items()})


def _is_torch_coming() -> bool:
    """Return whether torch is not imported yet, or in the middle of it: there is nothing to clear up.

    torch's C++ would drop an exception while it imports numpy, and go on with half of it.
    """
    torch = sys.modules.get("torch")
    return torch is None or bool(getattr(torch.__spec__, "_initializing", False))


class Interrupt:
    """Ctrl-C, SIGTERM and SIGHUP as a wish to stop: while entered, they only set ``signal``, which the loop reads.

    Until :meth:`hold_back` is called, they also raise :class:`Stopped`: a first step, which may compile for minutes,
    has nothing to save. A SIGHUP that is ignored stays so, as nohup wants it. A second signal changes nothing: a
    launcher sends several, and the checkpoint is being written.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_held_back = False

    def hold_back(self) -> None:
        """From here on signals are only noted: there are steps to save."""
        self.is_held_back = True

    def __enter__(self) -> "Interrupt":
        is_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._previous = _handle_stops(self._note, [each for each in STOPS if each != signal.SIGHUP or not is_nohup])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _restore(self._previous)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            if not self.is_held_back:
                raise Stopped(number)


def _handle_stops(handler: "signal._HANDLER", numbers: Iterable[int]) -> "dict[int, signal._HANDLER]":
    """Set the handler of signals, and return those before it. Only the main thread can: nothing is done in others."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in numbers}


def _restore(handlers: "dict[int, signal._HANDLER]") -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Stopping:
    """Decides, alike on every rank, whether a run ends.

    Several ranks ask each other after the same steps, some seconds apart by their common clock: calls are collective.

    Args:
        config: its limits: ``max_steps``, ``time_budget``, ``patience``.
        world: the ranks.
        interrupt: the signals of this process.
    """

    def __init__(self, config: TrainConfig, world: "World", interrupt: Interrupt) -> None:
        self._config = config
        self._world = world
        self._interrupt = interrupt
        self.deadline = float("inf")
        if config.time_budget is not None:
            self.deadline = time.monotonic() + config.time_budget
        self.by_callback = False
        self._signal: int | None = None  # that all ranks know of
        self._is_over = False  # the time budget, for all ranks
        self._last_step: int | None = None
        self._steps = 0  # since the last agreement, or batches of an evaluation
        self._steps_until_next = 1
        self._since = time.monotonic()

    @property
    def by_signal(self) -> bool:
        """True if a signal ends the run."""
        return self._signal is not None

    def ends_after(self, step: int) -> bool:
        """Return whether a signal (then ``by_signal`` is true) or a limit ends the run after a step. Collective."""
        self._interrupt.hold_back()
        self._ask(1 if self._last_step is None else step - self._last_step)
        self._last_step = step
        return self.by_signal or self.is_spent(step)

    def is_spent(self, step: int) -> bool:
        """Return whether --max-steps or --time-budget is used up."""
        if self._config.max_steps is not None and step >= self._config.max_steps:
            return True
        return self._is_over if self._world.size > 1 else time.monotonic() > self.deadline

    def until_signal(self, batches: "Iterable[Batch]") -> "Iterator[Batch]":
        """Yield batches, and raise :class:`Stopped` after one if a signal is to end the run. Collective."""
        for batch in batches:
            yield batch
            self._ask(1)
            if self._signal is not None:
                raise Stopped(self._signal)

    @contextmanager
    def saving(self, save: Callable[[], None]) -> Iterator[None]:
        """Take a signal that ends what is inside early, and save, unless no step was taken yet: all is as it was."""
        try:
            yield
        except Stopped as stop:
            self._signal = stop.signal
            if self._interrupt.is_held_back:
                save()

    def _ask(self, steps: int) -> None:
        """Take over this process's signal; several ranks do so together, about every ``_ASK_EVERY`` seconds."""
        if self._world.size == 1:
            self._signal = self._interrupt.signal
            return
        self._steps += steps
        if self._steps < self._steps_until_next:
            return
        import torch  # noqa: PLC0415 -- commands that only print handle signals, too

        now = time.monotonic()
        signals = [number == self._interrupt.signal for number in STOPS]
        asked = torch.tensor([*signals, now > self.deadline, now - self._since], dtype=torch.float64)
        asked = asked.to(self._world.device)
        self._world.all_reduce(asked)
        *counts, over, seconds = asked.tolist()
        self._signal = next((number for number, count in zip(STOPS, counts, strict=True) if count), None)
        self._is_over = over > 0
        pace = max(seconds / self._world.size / self._steps, 1e-9)  # seconds of a step, the same on all ranks
        self._steps_until_next = int(min(max(_ASK_EVERY / pace, 1), _MOST_STEPS))
        self._steps = 0
        self._since = now

    def is_stale(self, epoch: int, best: "Best") -> bool:
        """Return whether the test loss has not improved for ``patience`` epochs."""
        return self._config.patience is not None and epoch - best.epoch >= self._config.patience

    @property
    def status(self) -> int:
        """The exit status of a run that a signal ended."""
        return 128 + (self._signal or self._interrupt.signal or signal.SIGINT)

    def reason(self, step: int, epoch: int, first_step: int, best: "Best") -> str:
        """Say what ended a run after ``epoch`` finished epochs, ``first_step`` steps, or in the next one."""
        if self.is_stale(epoch, best):
            return f"no better test loss for {self._config.patience} epochs: the best is that of epoch {best.epoch}"
        if self.by_callback:
            return f"ended by a callback after epoch {epoch}"
        limit = "--max-steps" if step == self._config.max_steps else "--time-budget"
        where = f"after epoch {epoch}" if step == first_step else f"in epoch {epoch + 1}"
        return as_typed(f"ended by {limit} at step {step}, {where}", TrainConfig)
