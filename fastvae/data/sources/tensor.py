"""Images in memory as a source, and any source read into memory."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from fastvae.utils.errors import InputError
from fastvae.utils.machine import check_fits
from fastvae.utils.terminal import Terminal

from .source import Source

_PART = 64  # images that one thread reads together
_PART_VALUES = 64 << 20  # pixel values of them, at most: 256 MB of fp32
_ROUNDING = 1e-5  # a resize of fp32 pixels in [0, 1] gives 1.0000002 at most; a grey level is 4e-3


class TensorSource:
    """A tensor as a :class:`Source`; an index or a slice gives a tensor, as the tensor itself does.

    Args:
        images: (N, C, H, W), uint8 or fp32; kept, not copied.

    Raises:
        InputError: the tensor has another number of dimensions.

    >>> source = TensorSource(torch.zeros(5, 1, 8, 8))
    >>> source.shape, source[:2].shape, source.read([4, 0]).shape
    ((5, 1, 8, 8), torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 8, 8]))
    """

    def __init__(self, images: Tensor) -> None:
        if images.ndim != 4:
            raise InputError(f"images must be (N, C, H, W), but have shape {tuple(images.shape)}: reshape them")
        count, channels, height, width = images.shape
        self.images = images
        self.shape = (count, channels, height, width)
        self.dtype = images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Tensor:
        return self.images[index]

    def read(self, indices: Sequence[int]) -> Tensor:
        return self.images[torch.as_tensor(indices, dtype=torch.int64)]


def without_rounding(pixels: Tensor) -> Tensor:
    """Return floats with those at most 1e-5 above 1 read as 1, and those at most 1e-5 below 0 as 0; others as they are.

    A resize, a conversion between colour spaces or a division leaves them there, and a Bernoulli likelihood needs
    [0, 1]. No copy is made where there are none.
    """
    if not pixels.is_floating_point() or pixels.numel() == 0:
        return pixels
    low, high = (bound.item() for bound in torch.aminmax(pixels))
    if high > 1:
        pixels = torch.where((pixels > 1) & (pixels <= 1 + _ROUNDING), 1.0, pixels)
    if low < 0:
        pixels = torch.where((pixels < 0) & (pixels >= -_ROUNDING), 0.0, pixels)
    return pixels


def as_source(images: Tensor | Source) -> Source:
    """Return a tensor as a :class:`TensorSource`, and a source as it is."""
    return TensorSource(images) if isinstance(images, Tensor) else images


def in_memory(images: Tensor | Source, *, show: bool = False) -> Tensor:
    """Return all images as one tensor (N, C, H, W): without a copy if they are in memory, else :func:`read_all`."""
    if isinstance(images, Tensor):
        return images
    return images.images if isinstance(images, TensorSource) else read_all(images, show=show)


def read_all(source: Source, *, show: bool = False) -> Tensor:
    """Read all images, (N, C, H, W) in the memory format that the source gives, by as many threads as cores.

    ``show`` draws a progress bar on stderr where it takes longer than a moment. Raises InputError where memory can
    never hold them.
    """
    check_fits(math.prod(source.shape) * source.dtype.itemsize, "what is read into memory")
    # Resizing and decoding need several times the memory of what they give.
    size = max(1, min(_PART, _PART_VALUES // math.prod(source.shape[1:])))
    first = source.read(range(min(size, len(source))))
    layout = torch.channels_last if first.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    images = torch.empty(source.shape, dtype=source.dtype, memory_format=layout)

    def fill(start: int) -> None:
        part = range(start, min(start + size, len(source)))
        images[part.start : part.stop] = source.read(part)

    starts = range(0, len(source), size)
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads,
        Progress(console=Terminal(stderr=True), transient=True, disable=not show) as progress,
    ):
        for _ in progress.track(threads.map(fill, starts), total=len(starts), description="reading images"):
            pass
    return images
