"""Numbers of the device, read without waiting for it: asked for now, there at a later look."""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

Tag = TypeVar("Tag")


class AsyncScalars(Generic[Tag]):
    """A queue of copies from a device to the host, each with a tag that says what it is.

    On a GPU the copies run behind the work in hand, into page-locked memory; on the CPU they are there at once.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[Tensor, torch.cuda.Event | None, Tag]] = deque()

    def ask(self, values: Tensor, tag: Tag) -> None:
        """Begin to copy ``values``, which may be overwritten after this call by work on the same stream."""
        if not values.is_cuda:
            self._queue.append((values.clone(), None, tag))
            return
        host = torch.empty_like(values, device="cpu", pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._queue.append((host, event, tag))

    def ready(self, *, wait: bool = False, but: int = 0) -> Iterator[tuple[Tensor, Tag]]:
        """What has arrived since the last look, in order; if one waits, all that was asked for but the last few."""
        while len(self._queue) > but:
            values, event, tag = self._queue[0]
            if event is not None and not event.query():
                if not wait:
                    return
                event.synchronize()
            self._queue.popleft()
            yield values, tag
