"""Arrays in HDF5 files, which h5py reads."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...files import reason
from ..npy import check_images
from ..source import Images
from .arrays import IN_MEMORY, Array, Rows, halved, paired
from .pick import pick
from .split import Index


class Hdf5(Rows):
    """Rows of a data set in an HDF5 file. Each process opens the file for itself, at its first read.

    Args:
        path: the file. key: the name of the data set in it.
        shape, dtype: of it.

    Raises:
        InputError: these are no images.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(f"{path}:{key}", shape, dtype)
        self._path, self._key = path, key
        self._opened: tuple[int, Any] | None = None  # by which process

    def _take(self, rows: Index) -> NDArray[Any]:
        try:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = os.getpid(), _h5py(self._path).File(self._path, "r")[self._key]
            dataset = self._opened[1]
            taken = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
            # One by one: for rows out of chunks that is many times faster than h5py's own selection of several.
            # Ascending, so that what a chunk holds is unpacked once.
            for place in np.argsort(rows):
                taken[place] = dataset[rows[place]]
        except (OSError, KeyError) as error:
            raise InputError(
                f"{self.label}: can't be read ({reason(error)}): give a complete HDF5 file, and leave it as it is"
            ) from error
        return taken

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def read_hdf5(path: Path, key: str | None) -> tuple[Images, Images]:
    """Training and test images of an HDF5 file: the data set ``key``, or those that pick() finds.

    One array is split: every tenth image is for testing.

    Raises:
        InputError: h5py is not installed, the file cannot be read, or has no such data set, or none of images that
            could be told from others.
    """
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            found: dict[str, Any] = {}
            file.visititems(lambda name, item: found.update({name: item} if getattr(item, "shape", None) else {}))
            if key is not None and key.strip("/") not in found:
                raise InputError(f"{path}: has no data set {key!r}, but {', '.join(found) or 'none'}: name one of them")
            names = (
                (key.strip("/"),)
                if key is not None
                else pick(str(path), found, f"name one, as {path}:{next(iter(found), 'KEY')}")
            )
            arrays = [_rows(path, name, found[name]) for name in names]
    except OSError as error:
        raise InputError(f"{path}: can't be read as HDF5 ({reason(error)}): give a complete HDF5 file") from error
    return paired(*arrays) if len(arrays) == 2 else halved(*arrays)


def _rows(path: Path, key: str, dataset: Any) -> Rows:
    check_images(f"{path}:{key}", dataset.shape, dataset.dtype)
    if dataset.nbytes <= IN_MEMORY:
        return Array(f"{path}:{key}", dataset[()])
    return Hdf5(path, key, dataset.shape, dataset.dtype)


def _h5py(path: Path) -> Any:
    try:
        return import_module("h5py")  # optional
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: HDF5 files need h5py, which is not installed: pip install fastvae[hdf5]") from error
