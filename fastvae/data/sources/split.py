"""The split of images that come as one set: number 0 and every tenth after it are for testing."""

import numpy as np
from numpy.typing import NDArray

from fastvae.utils.errors import InputError
from fastvae.utils.machine import check_fits

from .source import EncodedPictures

_EVERY = 10
_INDEX = 34  # bytes of memory for each image: its number in an array and in a split's, twice while that is made

Index = NDArray[np.int64]


def numbers(count: int, label: str) -> Index:
    """Return 0 .. count - 1 for a count that a file claims. Raises InputError where memory cannot hold them."""
    check_fits(count * _INDEX, f"{label}: an index of its {count:,} images")
    return np.arange(count, dtype=np.int64)


def train_test_indices(count: int, label: str, every: int = _EVERY) -> tuple[Index, Index]:
    """Return which images are for training, and which for testing: 0, every, 2 * every, ...

    Args:
        count: images in all. label: what they are called, for people.

    Raises:
        InputError: there are fewer than two images, or more than memory can index.

    >>> train_test_indices(7, "seven", every=3)
    (array([1, 2, 4, 5]), array([0, 3, 6]))
    """
    if count < 2:
        images = "1 image" if count else "no images"
        raise InputError(f"{label}: has {images}, too few to split into training and testing: give at least 2")
    index = numbers(count, label)
    is_test = index % every == 0
    return index[~is_test], index[is_test]


class Subset:
    """Some of the pictures of an :class:`EncodedPictures`, by an index of them."""

    def __init__(self, pictures: EncodedPictures, index: Index) -> None:
        self._pictures = pictures
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def encoded(self, index: int) -> bytes:
        return self._pictures.encoded(int(self._index[index]))

    def name(self, index: int) -> str:
        return self._pictures.name(int(self._index[index]))

    def file(self, index: int) -> bytes:
        return self._pictures.file(int(self._index[index]))


def split_pictures(pictures: EncodedPictures, label: str) -> tuple[EncodedPictures, EncodedPictures]:
    """Split pictures into training and testing. Raises InputError where there are fewer than two."""
    train, test = train_test_indices(len(pictures), label)
    return Subset(pictures, train), Subset(pictures, test)
