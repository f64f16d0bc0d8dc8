"""CIFAR-10, from its binary version or from torchvision's copy of the Python version."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvae.data.sources.folders import user_folder
from fastvae.utils.errors import InputError
from fastvae.utils.files import open_regular, reason

from .download import download, download_folder

_BINARY = "cifar-10-batches-bin"
_PYTHON = "cifar-10-batches-py"
_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_IMAGES = 10_000  # in each file
_RECORD = 1 + 3 * 32 * 32  # bytes: the label 0..9, then the pixels in (C, H, W) order


def read(data_dir: Path | None) -> tuple[Tensor, Tensor]:
    """Read training and test images: (50000, 3, 32, 32) and (10000, 3, 32, 32), uint8.

    Raises:
        InputError: files are missing, damaged or not the published ones, or the download failed.
    """
    folder = user_folder(data_dir)
    if folder is None:
        folder = download_folder("cifar10")
        try:
            return _python_version(folder)
        except (RuntimeError, OSError):  # not there yet, or not intact
            download("cifar10", folder, lambda fresh: _torchvision(fresh, train=True, download=True))
    for place in (folder / _BINARY, folder):
        if os.path.exists(place / _BATCHES[0]):
            return _binary_version(place, _BATCHES), _binary_version(place, ("test_batch.bin",))
    if not os.path.exists(folder / _PYTHON):
        raise InputError(
            f"cifar10: no {_BINARY} and no {_PYTHON} in {folder}: unpack CIFAR-10's archive there, "
            "or leave out --data-dir and FASTVAE_DATA to download it"
        )
    try:
        return _python_version(folder)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{folder / _PYTHON}: a file is missing, unreadable or not the published one by its MD5 sum "
            f"({reason(error)}): unpack cifar-10-python.tar.gz there again"
        ) from error


def _binary_version(folder: Path, names: tuple[str, ...]) -> Tensor:
    images = torch.empty((len(names), _IMAGES, 3, 32, 32), dtype=torch.uint8)
    for place, name in zip(images.numpy(), names, strict=True):
        path = folder / name
        try:
            with open_regular(path) as file:
                held = os.fstat(file.fileno()).st_size
                records = np.fromfile(file, dtype=np.uint8) if held == _IMAGES * _RECORD else None
        except OSError as error:
            raise InputError(
                f"{path}: can't be read ({reason(error)}): unpack cifar-10-binary.tar.gz there again"
            ) from error
        if records is None:
            raise InputError(
                f"{path}: holds {held} bytes, not {_IMAGES} records of {_RECORD}: "
                "unpack cifar-10-binary.tar.gz there again"
            )
        records = records.reshape(_IMAGES, _RECORD)
        if records[:, 0].max() > 9:
            raise InputError(
                f"{path}: has a label {records[:, 0].max()} above 9, so it is not CIFAR-10: "
                "unpack cifar-10-binary.tar.gz there"
            )
        place[:] = records[:, 1:].reshape(place.shape)
    return images.flatten(0, 1)


def _python_version(folder: Path) -> tuple[Tensor, Tensor]:
    train, test = (_torchvision(folder, train=train) for train in (True, False))
    return train, test


def _torchvision(folder: Path, *, train: bool, download: bool = False) -> Tensor:
    """Read the images by torchvision, which checks the MD5 sum of every file before it unpickles one."""
    datasets = import_module("torchvision.datasets")  # slow to import, so only where it is needed
    images: NDArray[Any] = datasets.CIFAR10(folder, train=train, download=download).data  # (N, 32, 32, 3) uint8
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
