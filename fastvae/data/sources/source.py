"""Images that are read when they are asked for: what a loader needs of a data set that is not in memory."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from rich.progress import Progress
from torch import Tensor

from fastvae.utils.machine import check_fits
from fastvae.utils.terminal import Terminal

_PART = 64  # images that one thread reads together


@runtime_checkable
class Encoded(Protocol):
    """Pictures of any size as their files have them, by index: in a folder, in a list, in archives."""

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> bytes:
        """One picture's JPEG, PNG or WebP. Raises OSError where it cannot be read."""

    def name(self, index: int) -> str:
        """Where it is, for people: a path, or an archive's path and the member in it."""

    def file(self, index: int) -> bytes:
        """The path of a file or a folder that changes when the picture does."""


class Source(Protocol):
    """Images of one size, by index alone: any process may read them in any order, and finds the same.

    shape: (N, C, H, W). dtype: torch.uint8 or torch.float32.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Tensor:
        """Images (n, C, H, W) on the host. Raises InputError, in one line with its name, for one that is broken."""


Images = Tensor | Source


class Held:
    """A tensor (N, C, H, W) as a :class:`Source`."""

    def __init__(self, images: Tensor) -> None:
        self._images = images
        count, channels, height, width = images.shape
        self.shape, self.dtype = (count, channels, height, width), images.dtype

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Sequence[int]) -> Tensor:
        return self._images[torch.as_tensor(indices, dtype=torch.int64)]


def in_memory(images: Images, *, show: bool = False) -> Tensor:
    """A tensor as it is, and all that a source has."""
    return images if isinstance(images, Tensor) else read_all(images, show=show)


def read_all(source: Source, *, show: bool = False) -> Tensor:
    """All images in memory, (N, C, H, W) in the memory format that they are read in; by as many threads as cores.

    ``show`` draws a bar of the progress on stderr where it takes longer than a moment. Raises InputError where memory
    can never hold them.
    """
    check_fits(math.prod(source.shape) * source.dtype.itemsize, "what is read into memory")
    first = source.read(range(min(_PART, len(source))))
    layout = torch.channels_last if first.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    images = torch.empty(source.shape, dtype=source.dtype, memory_format=layout)

    def fill(start: int) -> None:
        part = range(start, min(start + _PART, len(source)))
        images[part.start : part.stop] = source.read(part)

    starts = range(0, len(source), _PART)
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads,
        Progress(console=Terminal(stderr=True), transient=True, disable=not show) as progress,
    ):
        for _ in progress.track(threads.map(fill, starts), total=len(starts), description="reading images"):
            pass
    return images
