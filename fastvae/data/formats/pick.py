"""Which of the arrays in a file are the images."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from fastvae.data.sources.npy import check_images
from fastvae.utils.errors import InputError

_PAIRS = (("x_train", "x_test"), ("train", "test"), ("train_images", "test_images"))


class Kind(Protocol):
    """An array, or what is known of one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


def pick(label: str, arrays: Mapping[str, Kind], remedy: str) -> tuple[str, ...]:
    """The names of two arrays, for training and for testing, or of the one with all images.

    That are ``x_train`` and ``x_test``, ``train`` and ``test``, ``train_images`` and ``test_images``, or ``images``, or
    the only array that could be images: (N, H, W), (N, C, H, W) or (N, H, W, C) of uint8, bool or floats.

    Args:
        label: the file's name. remedy: what to do where none or several could be.

    Raises:
        InputError: none or several could be.
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
        return tuple(arrays)  # to say what is wrong with it
    held = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items()) or "nothing"
    which = "several arrays that could be images" if likely else "no array of images"
    raise InputError(f"{label}: has {which} ({held}): {remedy}")


def _is_likely(array: Kind) -> bool:
    try:
        check_images("", array.shape, array.dtype)
    except InputError:
        return False
    return len(array.shape) >= 3
