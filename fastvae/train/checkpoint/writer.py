"""The checkpoints of a run, copied quickly and written beside the training."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType

from . import checkpoint
from .async_writer import AsyncWriter
from .best import Best
from .checkpoint import Checkpoint, Copies


class CheckpointWriter:
    """Writes checkpoints, and the best weights with them, in a thread; entered for as long as the run trains.

    Raises:
        InputError: an earlier checkpoint could not be written: at the next :meth:`save`, or on the way out.
    """

    def __init__(self) -> None:
        self._writer = AsyncWriter()
        self._copies = Copies()

    def __enter__(self) -> "CheckpointWriter":
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def save(self, folder: Path, step: int, now: Checkpoint, best: Best) -> None:
        """Copy a checkpoint, whose tensors training goes on to change, and have the copy written to ``folder``."""

        def capture() -> Callable[[], None]:
            return partial(write, self._copies.take(now))

        def write(copied: Checkpoint) -> None:
            best.save(folder)
            checkpoint.save(folder, step, copied)
            self._copies.give_back(copied)

        self._writer.submit(capture)

    def wait(self) -> None:
        """Wait until all is written."""
        self._writer.wait()
