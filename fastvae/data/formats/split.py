"""The split of images that come as one set: every tenth is for testing."""

import numpy as np
from numpy.typing import NDArray

from fastvae.data.sources.source import Encoded
from fastvae.utils.errors import InputError
from fastvae.utils.machine import check_fits

_EVERY = 10
_INDEX = 34  # bytes of memory for each image: its number in an array and in a split's, twice while that is made

Index = NDArray[np.int64]


def numbers(count: int, label: str) -> Index:
    """The numbers of some images, as many as a file claims. Raises InputError where memory cannot hold an index."""
    check_fits(count * _INDEX, f"{label}: an index of its {count:,} images")
    return np.arange(count, dtype=np.int64)


def tenths(count: int, label: str) -> tuple[Index, Index]:
    """The images for training, and those for testing: 0, 10, 20, ...

    Raises:
        InputError: there are fewer than two images, or far too many.

    >>> tenths(4, "four")
    (array([1, 2, 3]), array([0]))
    """
    if count < 2:
        images = "1 image" if count else "no images"
        raise InputError(f"{label}: has {images}, too few to split into training and testing: give at least 2")
    every = numbers(count, label)
    is_test = every % _EVERY == 0
    return every[~is_test], every[is_test]


class Chosen:
    """Some of the pictures of an :class:`Encoded`, as an Encoded."""

    def __init__(self, pictures: Encoded, index: Index) -> None:
        self._pictures, self._index = pictures, index

    def __len__(self) -> int:
        return len(self._index)

    def encoded(self, index: int) -> bytes:
        return self._pictures.encoded(int(self._index[index]))

    def name(self, index: int) -> str:
        return self._pictures.name(int(self._index[index]))

    def file(self, index: int) -> bytes:
        return self._pictures.file(int(self._index[index]))


def halved(pictures: Encoded, label: str) -> tuple[Encoded, Encoded]:
    """Pictures for training and for testing. Raises InputError where there are fewer than two."""
    train, test = tenths(len(pictures), label)
    return Chosen(pictures, train), Chosen(pictures, test)
