"""A thread that writes checkpoints while the training goes on."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

Work = Callable[[], None]
Capture = Callable[[], Work]


class AsyncWriter:
    """Writes in one thread, in order; a newer job replaces one that has not started.

    So a disk that cannot keep up gets fewer checkpoints. On the way out it waits until all is written.

    Raises:
        InputError: an earlier job could not be written: at the next call, or on the way out.
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
        if error is None:  # else the user is told what ended the run, not what its disk refused
            self._check_finished()

    def submit(self, capture: Capture) -> None:
        """Submit a job: ``capture`` copies what is to be written, and returns the function that writes the copy.

        A job that has not started is dropped first, so that there are never more than two copies.
        """
        self._check_finished()
        with self._lock:
            self._newest = None
        work = capture()
        with self._lock:
            self._newest = work
        self._jobs.append(self._thread.submit(self._write_newest))

    def wait(self) -> None:
        """Wait until all is written."""
        for job in self._jobs:
            job.result()

    def _check_finished(self) -> None:
        finished = [job for job in self._jobs if job.done()]
        self._jobs = [job for job in self._jobs if job not in finished]
        for job in finished:
            job.result()

    def _write_newest(self) -> None:
        with self._lock:
            work = self._newest
            self._newest = None
        if work is not None:
            work()
