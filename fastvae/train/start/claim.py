"""The hold of a start on its run's folder."""

from types import TracebackType

from fastvae.train.loop import Loop
from fastvae.train.report.run_folder import RunFolder
from fastvae.train.stopping import Stopped


class Claim:
    """Releases a run's folder at the end, and leaves it as it was where the run took no step."""

    def __init__(self, folder: RunFolder | None) -> None:
        self._folder = folder
        self._loop: Loop | None = None
        self._first = 0
        self._is_stopped = False

    def watch(self, loop: Loop) -> None:
        """Take note of the step that a loop starts at."""
        self._loop = loop
        self._first = loop.step

    def note_end(self, status: int) -> None:
        """Take note of the exit status of a run: a signal may have ended it before its first step."""
        self._is_stopped = status != 0

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_unused = self._loop is None or self._loop.step == self._first
        if isinstance(error, Stopped):
            error.has_trained = not is_unused
        if self._folder is None:
            return
        has_failed = error is not None or self._is_stopped
        if has_failed and is_unused and not self._folder.has_new_checkpoint():
            self._folder.abandon()
        else:
            self._folder.close()
