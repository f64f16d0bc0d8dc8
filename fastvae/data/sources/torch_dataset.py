"""A data set of torch's, or a list of images, as a source."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvae.utils.errors import InputError

from .decoded import picture_pixels, upright
from .resize import middle_square
from .tensor import without_rounding

_CHANNELS = (1, 3, 4)
_GREY = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B")  # Pillow's modes


class _MapDataset(Protocol):
    """A map-style data set, as torch calls it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class DatasetSource:
    """A map-style data set of torch's, or a list, as a :class:`Source`.

    Args:
        dataset: its items are images, as :func:`image_of` takes them, all alike. The same index must give the same
            image. It is read by one thread at a time.
        size: the side in pixels that each image's middle square is resized to; None for images that are all alike.

    Raises:
        InputError: an item is something else, or differs in shape or type from the first; found as it is read.

    >>> from torch.utils.data import TensorDataset
    >>> items = DatasetSource(TensorDataset(torch.zeros(5, 1, 4, 4), torch.arange(5)))
    >>> items.shape, items.dtype, items.read([3, 1]).shape
    ((5, 1, 4, 4), torch.float32, torch.Size([2, 1, 4, 4]))
    """

    def __init__(self, dataset: _MapDataset, size: int | None = None) -> None:
        self._dataset = dataset
        self._size = size
        self._lock = threading.Lock()  # a data set may hold an open file, whose place its threads would share
        if len(dataset) < 1:
            raise InputError("a data set needs images, but has 0")
        first = self._image(0)
        channels, height, width = first.shape
        self.shape = (len(dataset), channels, height, width)
        self.dtype = first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Sequence[int]) -> Tensor:
        images = torch.empty((len(indices), *self.shape[1:]), dtype=self.dtype)
        with self._lock:
            for row, index in enumerate(indices):
                image = self._image(int(index))
                if image.shape != images.shape[1:] or image.dtype != self.dtype:
                    raise InputError(
                        f"item {index} is {tuple(image.shape)} {image.dtype}, but item 0 {self.shape[1:]} "
                        f"{self.dtype}: make them alike, or give image_size"
                    )
                images[row] = image
        return images

    def _image(self, index: int) -> Tensor:
        image = image_of(self._dataset[index], f"item {index}")
        return image if self._size is None else middle_square(image[None], self._size)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def image_of(item: Any, label: str) -> Tensor:
    """Return the image of a data set's item: (C, H, W) uint8 or fp32.

    Args:
        item: a tensor (C, H, W), (H, W) or (D,); an array, or one (H, W, C) with C in 1, 3, 4 and sides above 4; a
            Pillow image; a tuple or list that begins with one of these, or a mapping that holds one. uint8 stays, bool
            becomes 0 and 255, and floats become fp32.
        label: what the item is called, for people.

    Raises:
        InputError: it is something else, or has pixels that are NaN or infinite.
    """
    if isinstance(item, Mapping):
        named = [name for name, value in item.items() if _is_image(value)]
        if len(named) != 1:
            keys = ", ".join(map(str, item)) or "nothing"
            raise InputError(f"{label} holds {keys}, {len(named)} of them images, not one: give a data set of one each")
        item = item[named[0]]
    elif isinstance(item, (tuple, list)) and item:
        item = item[0]
    if _is_pillow(item):
        if item.mode == "F":
            item = np.asarray(item)
        else:
            item = picture_pixels(upright(item), "L" if item.mode in _GREY else "RGB")
    if isinstance(item, np.ndarray):
        item = tensor_of(images_first(item, 3), label)
    if not isinstance(item, Tensor):
        raise InputError(
            f"{label} is a {type(item).__name__}, not an image: give a tensor (C, H, W), an array or a picture"
        )
    shape = tuple(item.shape)
    if item.ndim not in (1, 2, 3) or 0 in shape:
        raise InputError(f"{label} has shape {shape}, but an image is (C, H, W) or (H, W): reshape it")
    return as_pixels(item, label).reshape((1,) * (3 - item.ndim) + shape)


def as_pixels(images: Tensor, label: str) -> Tensor:
    """Return a tensor as pixels: uint8 as it is, bool as 0 and 255, floats as fp32, by :func:`.without_rounding`.

    Raises:
        InputError: it has another type, or pixels that are NaN or infinite.
    """
    images = images.detach()
    if images.dtype == torch.uint8:
        return images
    if images.dtype == torch.bool:
        return images.to(torch.uint8) * 255
    if not images.is_floating_point():
        raise InputError(
            f"{label}: elements of {images.dtype}, shape {tuple(images.shape)}, not uint8, bool or floats: convert "
            "them with .to(torch.uint8) if they are 0..255, else scale them to [0, 1] and use .float()"
        )
    images = images.float()
    if not images.isfinite().all():
        raise InputError(f"{label}: some pixels are NaN or infinite as float32: clean them, with torch.nan_to_num")
    return without_rounding(images)


def images_first(array: NDArray[Any], ndim: int) -> NDArray[Any]:
    """Return an array with its channels before its rows and columns: those of (..., H, W, C) are moved.

    They are taken for channels last only where that is certain: C is 1, 3 or 4, and both sides are more than 4.

    Args:
        ndim: the dimensions of an array that has channels: 3 for an image, 4 for several.
    """
    if array.ndim == ndim and array.shape[-1] in _CHANNELS and min(array.shape[-3:-1]) > max(_CHANNELS):
        return np.moveaxis(array, -1, -3)
    return array


def tensor_of(array: NDArray[Any], label: str) -> Tensor:
    """Return an array as a tensor, without a copy where its layout allows it. Raises InputError for other elements."""
    if array.dtype.kind not in "bfui":
        raise InputError(
            f"{label}: elements of {array.dtype}, shape {array.shape}, not uint8, bool or floats: give one array "
            "of numbers"
        )
    if np.ma.is_masked(array):
        raise InputError(f"{label}: some pixels are masked: give them a value, with array.filled(0)")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f" and array.dtype.itemsize > np.dtype(np.float64).itemsize:
        array = array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype != np.uint8:  # which older versions of torch do not have
        array = array.astype(np.int64)
    if min(array.strides, default=0) < 0 or not array.flags.writeable:  # torch refuses or warns
        array = array.copy()
    return torch.from_numpy(array)


def _is_pillow(item: Any) -> bool:
    return type(item).__module__.startswith("PIL.") and hasattr(item, "getexif")


def _is_image(item: Any) -> bool:
    return _is_pillow(item) or (isinstance(item, (Tensor, np.ndarray)) and item.ndim in (2, 3))
