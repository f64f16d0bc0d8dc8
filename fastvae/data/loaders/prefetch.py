"""Prefetching: batches are fetched by a thread and copied to the device while the previous step runs."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch

from .batch import Batch

_DEPTH = 2  # batches fetched ahead: one in use, one on its way
_End = BaseException | None


class Prefetcher:
    """Iterates over ``fetch(step)`` for some steps, which a thread calls a few steps ahead.

    On a GPU the thread has a stream of its own, on which images on the host are copied from pinned memory; the step's
    stream waits for the copy, not the host. An error of ``fetch`` is raised when the caller reaches that step.
    :meth:`close` ends the thread.

    waited: seconds that the caller waited for batches.
    """

    def __init__(self, fetch: Callable[[int], Batch], steps: Sequence[int], device: torch.device) -> None:
        self.waited = 0.0
        self._fetch = fetch
        self._steps = steps
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._queue: queue.Queue[tuple[Batch, torch.cuda.Event | None] | _End] = queue.Queue(_DEPTH)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fastvae-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Batch]:
        try:
            while True:
                started = time.perf_counter()
                item = self._queue.get()
                self.waited += time.perf_counter() - started
                if item is None:
                    return
                if isinstance(item, BaseException):
                    try:
                        raise item
                    finally:
                        del item  # its traceback holds this frame, and so the loader and its processes
                batch, copied = item
                if copied is not None:
                    stream = torch.cuda.current_stream(self._device)
                    stream.wait_event(copied)
                    batch.images.record_stream(stream)
                yield batch
        finally:
            self.close()

    def close(self) -> None:
        """End the thread and drop the batches that it fetched; an iteration that is still running ends."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()  # makes room, so that the thread can put its batch and see the flag
            except queue.Empty:
                self._thread.join(0.01)
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put(None)

    def _run(self) -> None:
        try:
            for step in self._steps:
                if self._closed.is_set():
                    return
                with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                    item = self._on_device(self._fetch(step))
                self._queue.put(item)
        except BaseException as error:
            self._queue.put(error)
        else:
            self._queue.put(None)

    def _on_device(self, batch: Batch) -> tuple[Batch, torch.cuda.Event | None]:
        """Copy a batch to the device; the event tells when it has arrived."""
        if self._stream is None:
            return batch, None
        images = batch.images
        if not images.is_cuda:
            images = images.pin_memory().to(self._device, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(self._stream)
        return batch._replace(images=images), copied
