"""The choice of the arrays in a file that hold the images."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from fastvae.utils.errors import InputError

from .npy import check_images

_PAIRS = (("x_train", "x_test"), ("train", "test"), ("train_images", "test_images"))


class Kind(Protocol):
    """The shape and the type of an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


def pick(label: str, arrays: Mapping[str, Kind], remedy: str) -> tuple[str, ...]:
    """Pick the names of two arrays, for training and for testing, or of the one with all images.

    They are ``x_train`` and ``x_test``, ``train`` and ``test``, ``train_images`` and ``test_images``, or ``images``, or
    the only array that could be images: (N, H, W), (N, C, H, W) or (N, H, W, C) of uint8, bool or floats.

    Args:
        label: the file's name. remedy: what the user can do if no array or several could hold images.

    Raises:
        InputError: no array or several could hold images.
    """
    for pair in _PAIRS:
        if all(name in arrays for name in pair):
            return pair
    if "images" in arrays:
        return ("images",)
    likely = tuple(name for name, array in arrays.items() if _is_likely(array))
    if len(likely) == 1:
        return likely
    if len(arrays) == 1:
        return tuple(arrays)  # its check says what is wrong with it
    held = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items()) or "nothing"
    which = "several arrays that could be images" if likely else "no array of images"
    raise InputError(f"{label}: has {which} ({held}): {remedy}")


def _is_likely(array: Kind) -> bool:
    try:
        check_images("", array.shape, array.dtype)
    except InputError:
        return False
    return len(array.shape) >= 3
