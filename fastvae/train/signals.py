"""Ctrl-C and SIGTERM as a wish to stop after the step in hand."""

import signal
from types import FrameType, TracebackType


class Interrupt:
    """While entered, SIGINT and SIGTERM only set ``signal``; the loop looks at it between steps.

    A second signal changes nothing: the launcher sends several, and the checkpoint is being written.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "Interrupt":
        self._previous = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = self.signal or number
