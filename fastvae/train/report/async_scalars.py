"""Scalars of the device, read by the host without synchronizing: requested now, taken later."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """The steps that some scalars are about: the last of them, and the images in all of them."""

    step: int
    images: int


class AsyncScalars:
    """A queue of copies from the device to the host, each with the window of steps that it is about.

    On a GPU the copies run after the work in the queue, into page-locked memory; on the CPU they are made at once.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[Tensor, torch.cuda.Event | None, Window]] = deque()

    def request(self, values: Tensor, window: Window) -> None:
        """Start a copy of ``values``; later work on the same stream may overwrite them."""
        if not values.is_cuda:
            self._queue.append((values.clone(), None, window))
            return
        host = torch.empty_like(values, device="cpu", pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._queue.append((host, event, window))

    def ready(self, *, wait: bool = False, but: int = 0) -> Iterator[tuple[Tensor, Window]]:
        """Yield the copies that have arrived, in order; with ``wait``, all that were requested but the last few."""
        while len(self._queue) > but:
            values, event, window = self._queue[0]
            if event is not None and not event.query():
                if not wait:
                    return
                event.synchronize()
            self._queue.popleft()
            yield values, window
