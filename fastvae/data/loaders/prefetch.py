"""Batches fetched before they are asked for, and copied to the device beside the step that is running."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch

from .batch import Batch

_DEPTH = 2  # batches fetched ahead: one is used, one is on its way
_End = BaseException | None


class Ahead:
    """Iterates over ``fetch(step)`` for some steps; a thread is ahead by a few.

    On a GPU ``fetch`` has a stream of its own, on which what it gives on the host is copied from pinned memory; the
    step's stream waits for it, not the host. What ``fetch`` raises is raised at that step. :meth:`close` ends the
    thread.

    waited: seconds in which the caller had to wait.
    """

    def __init__(self, fetch: Callable[[int], Batch], steps: Sequence[int], device: torch.device) -> None:
        self.waited = 0.0
        self._fetch, self._steps, self._device = fetch, steps, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._queue: queue.Queue[tuple[Batch, torch.cuda.Event | None] | _End] = queue.Queue(_DEPTH)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fastvae-ahead", daemon=True)
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
                        del item  # whose traceback holds this frame, and so the loader and its processes
                batch, copied = item
                if copied is not None:
                    stream = torch.cuda.current_stream(self._device)
                    stream.wait_event(copied)
                    batch.images.record_stream(stream)
                yield batch
        finally:
            self.close()

    def close(self) -> None:
        """End the thread, and let go what it fetched; who still iterates finds the end."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()  # so that it can put what it has, and see
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
                    item = self._there(self._fetch(step))
                self._queue.put(item)
        except BaseException as error:
            self._queue.put(error)
        else:
            self._queue.put(None)

    def _there(self, batch: Batch) -> tuple[Batch, torch.cuda.Event | None]:
        """The batch on the device, and what tells when it has arrived."""
        if self._stream is None:
            return batch, None
        images = batch.images
        if not images.is_cuda:
            images = images.pin_memory().to(self._device, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(self._stream)
        return batch._replace(images=images), copied
