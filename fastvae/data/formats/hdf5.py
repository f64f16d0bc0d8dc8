"""Arrays in HDF5 files, which h5py reads."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvae.data.sources.source import Source
from fastvae.data.sources.split import Index
from fastvae.data.sources.unpacking_limits import as_input_error, check_unpacked
from fastvae.utils.errors import InputError
from fastvae.utils.files import check_regular
from fastvae.utils.machine import check_fits

from .arrays import IN_MEMORY, ArraySource, NumpySource, choose_arrays, pair_arrays, split_array
from .checks.hdf5 import Chunks, arrays_of, check_inside, load_h5py
from .npy import check_images


class Hdf5Source(ArraySource):
    """A source of rows of a data set in an HDF5 file. Each process opens the file for itself, at its first read.

    Args:
        path: the file. key: the name of the data set in it.
        shape, dtype: those of the data set.

    Raises:
        InputError: the data set cannot hold images.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(f"{path}:{key}", shape, dtype)
        self._path = path
        self._key = key
        self._opened: tuple[int, Any, Chunks] | None = None  # the process that opened it, the data set, its chunks

    def _take(self, rows: Index) -> NDArray[Any]:
        with as_input_error(
            lambda why: f"{self.label}: can't be read ({why}): give a complete HDF5 file, and leave it as it is"
        ):
            if self._opened is None or self._opened[0] != os.getpid():
                check_regular(self._path)
                dataset = load_h5py(self._path).File(self._path, "r")[self._key]
                self._opened = os.getpid(), dataset, Chunks(dataset, self.label)
            _, dataset, chunks = self._opened
            chunks.check(rows)
            taken = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
            # One by one, which for chunked rows is many times faster than h5py's own selection of several. Ascending,
            # so that each chunk is unpacked once.
            for place in np.argsort(rows):
                taken[place] = dataset[rows[place]]
        return taken

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def read_hdf5(path: Path, key: str | None) -> tuple[Source, Source]:
    """Open training and test images of an HDF5 file: the data set ``key``, or those that :func:`.pick` finds.

    If there is one array, every tenth image is for testing.

    Raises:
        InputError: h5py is not installed; the file cannot be read, has no such data set, or none or several that could
            hold images; or its bytes are in other files.
    """
    h5py = load_h5py(path)
    # Damage ends in OSError, RuntimeError, KeyError, TypeError, UnicodeDecodeError, ...
    with as_input_error(lambda why: f"{path}: can't be read as HDF5 ({why}): give a complete HDF5 file"):
        check_regular(path)
        with h5py.File(path, "r") as file:
            found = arrays_of(file)
            if key is not None and key.strip("/") not in found:
                raise InputError(f"{path}: has no data set {key!r}, but {', '.join(found) or 'none'}: name one of them")
            names = (
                (key.strip("/"),)
                if key is not None
                else choose_arrays(str(path), found, f"name one, as {path}:{next(iter(found), 'KEY')}")
            )
            arrays = [_rows(path, name, found) for name in names]
    return pair_arrays(*arrays) if len(arrays) == 2 else split_array(*arrays)


def _rows(path: Path, key: str, found: dict[str, Any]) -> ArraySource:
    dataset = found[key]
    check_images(f"{path}:{key}", dataset.shape, dataset.dtype)
    check_inside(path, key, found)
    if dataset.chunks is not None:
        check_fits(math.prod(dataset.chunks) * dataset.dtype.itemsize, f"{path}:{key}: one chunk of it")
    check_unpacked(f"{path}:{key}", dataset.id.get_storage_size(), dataset.nbytes)
    if dataset.nbytes <= IN_MEMORY:
        Chunks(dataset, f"{path}:{key}").check(range(len(dataset)))
        return NumpySource(f"{path}:{key}", dataset[()])
    return Hdf5Source(path, key, dataset.shape, dataset.dtype)
