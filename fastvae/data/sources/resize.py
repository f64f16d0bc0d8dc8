"""Images cut to their middle square and resized."""

import math
from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor

from fastvae.utils.errors import InputError
from fastvae.utils.machine import check_fits, memory

from .source import Source
from .tensor import TensorSource, read_all, without_rounding

_SHARE = 4  # resized images take at most the machine's memory over this


class ResizedSource:
    """A :class:`Source` of images of another size, cut and resized by :func:`middle_square`, in their own type.

    Args:
        source: the images. size: their new side in pixels.

    Raises:
        InputError: the images have one row or one column, or ``size`` is more than memory can hold.
    """

    def __init__(self, source: Source, size: int) -> None:
        count, channels, height, width = source.shape
        if height < 2 or width < 2:
            raise InputError(f"images of {height} x {width} have no square to resize to {size}: leave out --image-size")
        check_fits(
            size**2 * channels * source.dtype.itemsize,
            f"one image of {size} x {size} pixels",
            "give a smaller --image-size",
        )
        self._source = source
        self._size = size
        self.shape = (count, channels, size, size)
        self.dtype = source.dtype

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int]) -> Tensor:
        return middle_square(self._source.read(indices), self._size)


def resized(source: Source, size: int | None) -> Source:
    """Return the middle square of each image at another size.

    ``None``, or the size that they have, leaves them as they are. Images in memory are resized at once, unless that
    would take more than a quarter of this machine's memory: then each is resized when it is read.
    """
    if size is None or source.shape[2:] == (size, size):
        return source
    lazy = ResizedSource(source, size)
    fits = math.prod(lazy.shape) * lazy.dtype.itemsize <= memory() // _SHARE
    return TensorSource(read_all(lazy)) if isinstance(source, TensorSource) and fits else lazy


def middle_square(images: Tensor, size: int) -> Tensor:
    """Cut the middle square out of images (B, C, H, W), and resize it to (B, C, size, size).

    The square has the side s = min(H, W) and begins at ((H - s) div 2, (W - s) div 2). Resizing is bilinear
    interpolation with antialiasing, and floats that its rounding puts outside of [0, 1] are read as 0 or 1.
    """
    functional = import_module("torchvision.transforms.v2.functional")  # slow to import, so only where it is needed
    height, width = images.shape[-2:]
    side = min(height, width)
    top = (height - side) // 2
    left = (width - side) // 2
    cut = images[..., top : top + side, left : left + side]
    if images.is_contiguous(memory_format=torch.channels_last):  # torch would take the channels of a part of it apart
        cut = cut.contiguous(memory_format=torch.channels_last)
    return without_rounding(functional.resize(cut, [size, size], antialias=True))
