"""Images that are rows of an array: a small array is read into memory, a large one is read from its file by rows."""

import copy
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fastvae.data.sources.memmap import check_length, check_whole
from fastvae.data.sources.source import Source
from fastvae.data.sources.split import Index, numbers, split_of, split_of_words, train_test_indices
from fastvae.data.sources.tensor import TensorSource
from fastvae.utils.errors import InputError
from fastvae.utils.files import descriptor_of

from . import npy
from .file_names import warn

# Bytes of both splits together, up to which they are read into memory; larger ones stay in their file.
IN_MEMORY = 1 << 30
_PAIRS = (("x_train", "x_test"), ("train", "test"), ("train_images", "test_images"))


class ArraySource(ABC):
    """A :class:`.Source` of some rows of an array, in any of the layouts of :func:`.npy.check_images`.

    Args:
        label: what the array is called, for people.
        shape, dtype: those of the whole array.

    Raises:
        InputError: the array cannot hold images, or so many that their indices alone do not fit into memory.

    Images come in the memory format of the array: those of (N, H, W, C) are channels_last.
    """

    def __init__(self, label: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        npy.check_images(label, shape, dtype)
        self.label = label
        self.dtype = torch.float32 if dtype.kind == "f" else torch.uint8
        self.shape: tuple[int, int, int, int] = npy.as_images(np.broadcast_to(np.empty((), dtype), shape)).shape
        self._index: Index = numbers(shape[0], label)

    def __len__(self) -> int:
        return len(self._index)

    def read(self, indices: Sequence[int]) -> Tensor:
        rows = self._index[np.asarray(indices, dtype=np.int64)]
        return npy.as_pixels(self.label, npy.as_images(self._take(rows)))

    @abstractmethod
    def _take(self, rows: Index) -> NDArray[Any]:
        """Copy rows out of the array."""

    def only(self, index: Index) -> Self:
        """Return a source of some of these rows."""
        part = copy.copy(self)
        part._index = self._index[index]
        part.shape = (len(index), *self.shape[1:])
        return part

    @property
    def bytes(self) -> int:
        """Bytes that these rows take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class NumpySource(ArraySource):
    """A source of rows of a numpy array. The pickle of a memory-mapped one has the file's path, not the data."""

    def __init__(self, label: str, array: NDArray[Any]) -> None:
        super().__init__(label, array.shape, array.dtype)
        self._array = array

    def _take(self, rows: Index) -> NDArray[Any]:
        array = self._array
        if not isinstance(array, np.memmap):
            return np.asarray(array[rows])
        if array.flags.c_contiguous:
            return _read_rows(array, rows)
        check_whole(array.filename, array._mmap, array.offset + array.nbytes)  # type: ignore[attr-defined]
        return np.asarray(array[rows])

    def __getstate__(self) -> dict[str, Any]:
        array = self._array
        if not isinstance(array, np.memmap):
            return self.__dict__
        order = "C" if array.flags.c_contiguous else "F"
        return {**self.__dict__, "_array": (array.filename, array.dtype, "r", array.offset, array.shape, order)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["_array"], tuple):
            state = {**state, "_array": np.memmap(*state["_array"])}
        self.__dict__.update(state)


def _read_rows(array: np.memmap[Any, Any], rows: Index) -> NDArray[Any]:
    """Read rows of a memory-mapped array by system calls: a file cut short is an error to them, but SIGBUS to a map."""
    taken = np.empty((len(rows), *array.shape[1:]), array.dtype)
    content = taken.reshape(-1).view(np.uint8).data
    size = array[:1].nbytes
    begins = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()  # where a run of consecutive rows begins
    file = descriptor_of(str(array.filename))
    try:
        check_length(array.filename, os.fstat(file).st_size, array.offset + array.nbytes)
        for begin, end in zip(begins, [*begins[1:], len(rows)][: len(begins)], strict=True):
            place = array.offset + int(rows[begin]) * size
            part = content[begin * size : end * size]
            while len(part):
                count = os.preadv(file, [part], place)
                check_length(array.filename, place + count, place + 1)  # at the end of the file, nothing is read
                place += count
                part = part[count:]
    finally:
        os.close(file)
    return taken


def _read_if_small(train: ArraySource, test: ArraySource) -> tuple[Source, Source]:
    """Read both splits into contiguous tensors if they are small together; else return them as they are."""
    if train.bytes + test.bytes > IN_MEMORY:
        return train, test
    whole_train, whole_test = (TensorSource(split.read(range(len(split))).contiguous()) for split in (train, test))
    return whole_train, whole_test


def split_array(rows: ArraySource) -> tuple[Source, Source]:
    """Split an array's images into training and testing. Raises InputError where there are fewer than two."""
    train, test = train_test_indices(len(rows), rows.label)
    return _read_if_small(rows.only(train), rows.only(test))


def pair_arrays(train: ArraySource, test: ArraySource) -> tuple[Source, Source]:
    """Take one array for training and one for testing. Raises InputError where their images differ in size or type."""
    kinds = [(*rows.shape[1:], str(rows.dtype).removeprefix("torch.")) for rows in (train, test)]
    if kinds[0] != kinds[1]:
        raise InputError(f"{train.label} has images of {kinds[0]}, but {test.label} has {kinds[1]}: make them alike")
    return _read_if_small(train, test)


def read_npy(path: Path) -> tuple[Source, Source]:
    """Read training and test images of an .npy file, each (N, C, H, W), uint8 or fp32; every tenth is for testing.

    Raises:
        InputError: the file is missing, not an .npy file, truncated, of another type or shape, empty, has fewer than
            two images, or has pixels that are NaN or infinite.
    """
    return split_array(NumpySource(str(path), npy.open_npy(path)))


class ArrayKind(Protocol):
    """The shape and the type of an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


def choose_arrays(label: str, arrays: Mapping[str, ArrayKind], remedy: str) -> tuple[str, ...]:
    """Choose the names of two arrays, for training and for testing, or of the one with all images.

    They are ``x_train`` and ``x_test``, ``train`` and ``test``, ``train_images`` and ``test_images``; or two that could
    be images, by the words in their names (:func:`.split_of_words`), as ``train/images`` and ``Validation/images``; or
    ``images``, or the only array that could be images: (N, H, W), (N, C, H, W) or (N, H, W, C) of uint8, bool or
    floats. One line of the log says so where that one is a split for testing.

    Args:
        label: the file's name. remedy: what the user can do if no array or several could hold images.

    Raises:
        InputError: no array or several could hold images.
    """
    for pair in _PAIRS:
        if all(name in arrays for name in pair):
            return pair
    likely = tuple(name for name, array in arrays.items() if _is_likely(array))
    if found := _pair_by_words(arrays, likely):
        return found
    if "images" in arrays:
        return ("images",)
    if len(likely) == 1:
        if split_of_words(likely[0]):
            warn(f"{label}: has no images for training, so those for testing, {likely[0]}, are trained on")
        return likely
    if len(arrays) == 1:
        return tuple(arrays)  # its check says what is wrong with it
    held = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items()) or "nothing"
    which = "several arrays that could be images" if likely else "no array of images"
    raise InputError(f"{label}: has {which} ({held}): {remedy}")


def _pair_by_words(arrays: Mapping[str, ArrayKind], likely: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the one array for training and the one for the first split for testing, among those that may be images.

    Plain vectors (N, D) may be images where their name has no other words, as x_train.
    """
    splits: dict[int, list[str]] = {}
    for name, array in arrays.items():
        rank = split_of_words(name) if name in likely else split_of(name) if len(array.shape) == 2 else None
        if rank is not None:
            splits.setdefault(rank, []).append(name)
    train = splits.pop(0, [])
    held_out = [names for _, names in sorted(splits.items()) if len(names) == 1]
    return (train[0], held_out[0][0]) if len(train) == 1 and held_out else None


def _is_likely(array: ArrayKind) -> bool:
    try:
        npy.check_images("", array.shape, array.dtype)
    except InputError:
        return False
    return len(array.shape) >= 3
