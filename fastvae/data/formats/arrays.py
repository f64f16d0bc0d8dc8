"""Images that are rows of one array: small ones as tensors, large ones read from their file when they are needed."""

import copy
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fastvae.data.sources import npy
from fastvae.data.sources.memmap import check_length, check_whole
from fastvae.data.sources.source import Images
from fastvae.utils.errors import InputError
from fastvae.utils.files import descriptor_of

from .split import Index, numbers, tenths

IN_MEMORY = 1 << 30  # bytes of both splits that are read into memory; what is larger stays in its file


class Rows(ABC):
    """Some rows of an array in any of the layouts of :func:`fastvae.data.sources.npy.check_images`, as a Source.

    Args:
        label: what the array is called, for people.
        shape, dtype: of the whole array.

    Raises:
        InputError: these are no images, or so many that their numbers alone do not fit into memory.

    Images come in the memory format that they lie in: those of (N, H, W, C) are channels_last.
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
        """Rows of the array, copied."""

    def only(self, index: Index) -> Self:
        """Some of these rows."""
        part = copy.copy(self)
        part._index = self._index[index]
        part.shape = (len(index), *self.shape[1:])
        return part

    @property
    def bytes(self) -> int:
        """What they take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class Array(Rows):
    """Rows of an array of numpy; of one that is mapped, a pickle has the file's path and not the data."""

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
    """Rows of a mapped array by system calls: a file that is cut short is an error to them, and SIGBUS to a map."""
    taken = np.empty((len(rows), *array.shape[1:]), array.dtype)
    content, size = taken.reshape(-1).view(np.uint8).data, array[:1].nbytes
    begins = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()  # of rows that follow one another
    file = descriptor_of(str(array.filename))
    try:
        check_length(array.filename, os.fstat(file).st_size, array.offset + array.nbytes)
        for begin, end in zip(begins, [*begins[1:], len(rows)][: len(begins)], strict=True):
            place, part = array.offset + int(rows[begin]) * size, content[begin * size : end * size]
            while len(part):
                count = os.preadv(file, [part], place)
                check_length(array.filename, place + count, place + 1)  # where the file ends, nothing is read
                place, part = place + count, part[count:]
    finally:
        os.close(file)
    return taken


def in_memory(train: Rows, test: Rows) -> tuple[Images, Images]:
    """Both splits as contiguous tensors, where they are small; else as they are."""
    if train.bytes + test.bytes > IN_MEMORY:
        return train, test
    return train.read(range(len(train))).contiguous(), test.read(range(len(test))).contiguous()


def halved(rows: Rows) -> tuple[Images, Images]:
    """Images for training and for testing. Raises InputError where there are fewer than two."""
    train, test = tenths(len(rows), rows.label)
    return in_memory(rows.only(train), rows.only(test))


def paired(train: Rows, test: Rows) -> tuple[Images, Images]:
    """Two arrays, for training and for testing. Raises InputError where their images differ in size or in type."""
    kinds = [(*rows.shape[1:], str(rows.dtype).removeprefix("torch.")) for rows in (train, test)]
    if kinds[0] != kinds[1]:
        raise InputError(f"{train.label} has images of {kinds[0]}, but {test.label} has {kinds[1]}: make them alike")
    return in_memory(train, test)


def read_npy(path: Path) -> tuple[Images, Images]:
    """Training and test images of an .npy file, each (N, C, H, W), uint8 or fp32; every tenth is for testing.

    Raises:
        InputError: the file is missing, no .npy file, truncated, of another type or shape, empty, has fewer than two
            images, or has pixels that are NaN or infinite.
    """
    return halved(Array(str(path), npy.mapped(path)))
