"""Splits: the names that people give them, and that of images in one set: every tenth is for testing."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvae.utils.errors import InputError
from fastvae.utils.machine import check_fits

from .source import EncodedPictures, Source

_EVERY = 10
# Names of splits. The first of those for testing that exists is taken; no other one is trained on.
TRAINING = ("train", "training")
TESTING = ("test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation")
_RANKS = dict.fromkeys(TRAINING, 0) | {name: rank for rank, name in enumerate(TESTING, 1)}
_FILLERS = {"x", "set", "split", "data", "image", "images", "img", "imgs"}  # as in x_train, test_images, Training set
_INDEX = 34  # bytes of memory for each image: its number in an array and in a split's, twice while that is made

Index = NDArray[np.int64]


@lru_cache(maxsize=1 << 16)  # a folder's name comes once for each of its pictures
def split_of(name: str) -> int | None:
    """Return which split a name is of: 0 for training, the place in :data:`TESTING` from 1 on, or None for neither.

    Capitals, digits and words that only say that it is a split do not count.

    >>> [split_of(name) for name in ("Train", "train2017", "x_test", "Validation_Set", "y_train", "test tube", "cats")]
    [0, 0, 1, 5, None, None, None]
    """
    words = [word for word in re.findall("[a-z]+", name.lower()) if word not in _FILLERS]
    return _RANKS.get(words[0]) if len(words) == 1 else None


def split_of_words(name: str) -> int | None:
    """Return which split a longer name is of, one of whose words is a split's, as :func:`split_of` does.

    >>> [split_of_words(name) for name in ("imagenet-train-000.tar", "cc3m_val.tar", "train-test.tar", "trains.tar")]
    [0, 3, None, None]
    """
    found = {_RANKS[word] for word in re.findall("[a-z]+", name.lower()) if word in _RANKS}
    return found.pop() if len(found) == 1 else None


def choose_splits(ranks: Iterable[int | None], label: str, what: str) -> int | None:
    """Return which split for testing is taken, by the ranks of :func:`split_of`; None where all is one set.

    Args:
        ranks: those of all parts: folders, archives or arrays.
        label: what holds them, for people. what: what one of them is called.

    Raises:
        InputError: parts for testing beside others, none of which is for training: they would be trained on.
    """
    found = set(ranks)
    held_out = sorted(rank for rank in found if rank)
    if not held_out:
        return None
    if 0 in found:
        return held_out[0]
    if len(found) == 1:
        return None  # a test split alone was asked for by its name
    raise InputError(
        f"{label}: has {what} named {TESTING[held_out[0] - 1]}, but none named train, which leaves open what is for "
        "training: rename that to train, or give the one that is wanted"
    )


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


class SourceSubset:
    """Some of the images of a :class:`Source`, by an index of them."""

    def __init__(self, source: Source, index: Index) -> None:
        self._source = source
        self._index = index
        self.shape = (len(index), *source.shape[1:])
        self.dtype = source.dtype

    def __len__(self) -> int:
        return len(self._index)

    def read(self, indices: Sequence[int]) -> Tensor:
        return self._source.read(self._index[np.asarray(indices, dtype=np.int64)].tolist())


class JoinedSource:
    """The images of two sources of one shape and type, one after the other."""

    def __init__(self, first: Source, second: Source) -> None:
        self._sources = (first, second)
        self.shape = (len(first) + len(second), *first.shape[1:])
        self.dtype = first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Sequence[int]) -> Tensor:
        images = torch.empty((len(indices), *self.shape[1:]), dtype=self.dtype)
        place = np.asarray(indices, dtype=np.int64)
        count = len(self._sources[0])
        for source, mask, offset in zip(self._sources, (place < count, place >= count), (0, count), strict=True):
            if mask.any():
                images[torch.from_numpy(mask)] = source.read((place[mask] - offset).tolist())
        return images


def split_pictures(pictures: EncodedPictures, label: str) -> tuple[EncodedPictures, EncodedPictures]:
    """Split pictures into training and testing. Raises InputError where there are fewer than two."""
    train, test = train_test_indices(len(pictures), label)
    return Subset(pictures, train), Subset(pictures, test)
