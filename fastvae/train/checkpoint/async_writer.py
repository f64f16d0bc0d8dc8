"""Checkpoints written beside the training, which waits for none of them."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

Work = Callable[[], None]
Capture = Callable[[], Work]


class AsyncWriter:
    """One thread that writes what it is given, in order. What still waits for it gives way to what is newer.

    So a disk that is slower than checkpoints are asked for gets fewer of them. On the way out it waits until all is
    written.

    Raises:
        InputError: what was written before could not be: at the next call, or on the way out.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "fastvae-saver")
        self._lock = threading.Lock()
        self._newest: Work | None = None
        self._jobs: list[Future[None]] = []

    def __enter__(self) -> "AsyncWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:  # else what ended the run is told, not what its disk refused
            self._look_at_finished()

    def submit(self, capture: Capture) -> None:
        """Have something written, soon: ``capture`` copies it, and returns what writes the copy.

        What still waits is let go first, so that there are never more copies than two.
        """
        self._look_at_finished()
        with self._lock:
            self._newest = None
        work = capture()
        with self._lock:
            self._newest = work
        self._jobs.append(self._thread.submit(self._write_newest))

    def wait(self) -> None:
        """Until all is written."""
        for job in self._jobs:
            job.result()

    def _look_at_finished(self) -> None:
        finished = [job for job in self._jobs if job.done()]
        self._jobs = [job for job in self._jobs if job not in finished]
        for job in finished:
            job.result()

    def _write_newest(self) -> None:
        with self._lock:
            work, self._newest = self._newest, None
        if work is not None:
            work()
