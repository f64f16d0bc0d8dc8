"""The hold of a start on its run's folder."""

from types import TracebackType

from fastvae.train.loop import Loop
from fastvae.train.report.run_folder import RunFolder


class Claim:
    """Releases a run's folder at the end, and leaves it as it was where the run took no step."""

    def __init__(self, folder: RunFolder | None) -> None:
        self._folder = folder
        self._loop: Loop | None = None
        self._first = 0

    def watch(self, loop: Loop) -> None:
        """Take note of the step that a loop starts at."""
        self._loop = loop
        self._first = loop.step

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is None:
            return
        is_unused = self._loop is None or self._loop.step == self._first
        if error is not None and is_unused and not self._folder.has_new_checkpoint():
            self._folder.abandon()
        else:
            self._folder.close()
