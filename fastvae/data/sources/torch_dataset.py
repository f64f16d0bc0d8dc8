"""A data set of torch's as a source."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fastvae.utils.errors import InputError


class _MapDataset(Protocol):
    """A map-style data set, as torch calls it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class DatasetSource:
    """A map-style data set of torch's as a :class:`Source`.

    Args:
        dataset: its items are images, (C, H, W) uint8 or fp32, all alike, or tuples that begin with one. The same
            index must give the same image.

    Raises:
        InputError: an item is something else, or differs in shape or type from the first; found as it is read.

    >>> from torch.utils.data import TensorDataset
    >>> items = DatasetSource(TensorDataset(torch.zeros(5, 1, 4, 4), torch.arange(5)))
    >>> items.shape, items.dtype, items.read([3, 1]).shape
    ((5, 1, 4, 4), torch.float32, torch.Size([2, 1, 4, 4]))
    """

    def __init__(self, dataset: _MapDataset) -> None:
        self._dataset = dataset
        if len(dataset) < 1:
            raise InputError("a data set needs images, but has 0")
        first = _image(dataset, 0)
        channels, height, width = first.shape
        self.shape = (len(dataset), channels, height, width)
        self.dtype = first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Sequence[int]) -> Tensor:
        images = torch.empty((len(indices), *self.shape[1:]), dtype=self.dtype)
        for row, index in enumerate(indices):
            image = _image(self._dataset, int(index))
            if image.shape != images.shape[1:] or image.dtype != self.dtype:
                raise InputError(
                    f"item {index} is {tuple(image.shape)} {image.dtype}, but item 0 {self.shape[1:]} {self.dtype}: "
                    "make them alike"
                )
            images[row] = image
        return images


def _image(dataset: _MapDataset, index: int) -> Tensor:
    item = dataset[index]
    image = item[0] if isinstance(item, (tuple, list)) and item else item
    if not isinstance(image, Tensor):
        raise InputError(f"item {index} is of type {type(image).__name__}, not a tensor (C, H, W): convert it")
    if image.ndim != 3 or image.dtype not in (torch.uint8, torch.float32):
        raise InputError(
            f"item {index} is {tuple(image.shape)} {image.dtype}, but must be (C, H, W) uint8 or float32: convert it"
        )
    return image
