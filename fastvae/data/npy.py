"""A user's own images, as one array in an .npy file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from .files import reason

_MAGIC = b"\x93NUMPY"
_CHANNELS = (1, 3, 4)
_EVERY = 10  # every tenth image is for testing


def read(path: Path) -> tuple[Tensor, Tensor]:
    """Training and test images of an .npy file, each (N, C, H, W), uint8 or fp32.

    Arrays of (N, H, W), (N, C, H, W) or (N, H, W, C) are images, with C in 1, 3, 4 and the first reading that fits;
    (N, D) are plain vectors, (N, 1, 1, D). bool becomes 0 and 255; all floats become fp32.

    Raises:
        InputError: the file is missing, no .npy file, truncated, of another type or shape, empty, has fewer than two
            images, or has pixels that are NaN or infinite.
    """
    path = Path(os.path.expanduser(path))
    images = _images(path, _array(path))
    if len(images) < 2:
        raise InputError(f"{path}: has 1 image, too few to split into training and testing: give at least 2")
    train, test = split(images, _EVERY)
    for part in (train, test) if train.is_floating_point() else ():
        low, high = (bound.item() for bound in torch.aminmax(part))
        if not np.isfinite([low, high]).all():
            raise InputError(
                f"{path}: has pixels that are NaN or infinite as float32 (they span [{low:g}, {high:g}]): "
                "clean them, with numpy.nan_to_num for one"
            )
    return train, test


def split(images: NDArray[Any], every: int) -> tuple[Tensor, Tensor]:
    """Split (N, ...) into the images for training and for testing, which are numbers 0, every, 2 * every, ...

    One copy, to uint8 or fp32: the array may be a mapped file.

    >>> import numpy as np
    >>> split(np.arange(7, dtype=np.uint8), every=3)
    (tensor([1, 2, 4, 5], dtype=torch.uint8), tensor([0, 3, 6], dtype=torch.uint8))
    """
    dtype = np.float32 if images.dtype.kind == "f" else np.uint8
    tests = -(-len(images) // every)
    train = np.empty((len(images) - tests, *images.shape[1:]), dtype)
    test = np.empty((tests, *images.shape[1:]), dtype)
    with np.errstate(over="ignore"):  # what is too large for fp32 becomes infinite
        test[:] = images[::every]
        for place in range(1, every):
            train[place - 1 :: every - 1] = images[place::every]
    if images.dtype.kind == "b":
        train *= 255
        test *= 255
    return torch.from_numpy(train), torch.from_numpy(test)


def _array(path: Path) -> NDArray[Any]:
    remedy = "save one array of images, all of one size, with numpy.save"
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
        if magic.startswith(b"PK"):
            raise InputError(f"{path}: is an archive (.npz or .zip), not an .npy file: {remedy}")
        if magic != _MAGIC:
            raise InputError(f"{path}: is not an .npy file, it begins with 0x{magic.hex()}: {remedy}")
        # Mapped, so a header that announces more than the file holds is refused before anything is allocated.
        array: NDArray[Any] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: can't be read ({reason(error)}): give the path of an .npy file") from error
    except Exception as error:  # a damaged header ends in ValueError, SyntaxError, TypeError, OverflowError, ...
        raise InputError(f"{path}: is no usable .npy file ({reason(error)}): {remedy}") from error
    return array


def _images(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """The array as (N, C, H, W), a view."""
    if array.dtype.kind not in "fb" and array.dtype != np.uint8:
        raise InputError(
            f"{path}: has elements of {array.dtype}, not uint8, bool or floats: convert it with "
            ".astype('uint8') if its values are 0..255, else scale it to [0, 1] and use .astype('float32')"
        )
    shape = array.shape
    if array.ndim >= 2 and array.size == 0:
        raise InputError(f"{path}: has shape {shape}, which holds no pixels: give at least 2 images")
    if array.ndim == 2:
        return array[:, None, None, :]
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and shape[1] in _CHANNELS:
        return array
    if array.ndim == 4 and shape[3] in _CHANNELS:
        return array.transpose(0, 3, 1, 2)
    raise InputError(
        f"{path}: has shape {shape}: reshape it to (N, H, W), (N, C, H, W) or (N, H, W, C) with C in 1, 3, 4, or (N, D)"
    )
