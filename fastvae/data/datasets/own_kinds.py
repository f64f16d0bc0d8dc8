"""Recognition of what people hand over as images: one set, two, or a set and its labels."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

from fastvae.data.sources.split import split_of
from fastvae.utils.errors import InputError

REMEDY = (
    "give a path, an array or a tensor (N, C, H, W), a list of images, a Dataset or DataLoader of torch's, or a pair "
    "of these for training and testing"
)


def torch_data() -> Any:
    """Return the module ``torch.utils.data``, which takes a moment to import."""
    return import_module("torch.utils.data")


def describe(data: Any) -> str:
    """Return what something is, for people: its type, and its shape and element type or its length.

    >>> describe(np.zeros((5, 2))), describe([3, 4]), describe(None)
    ('ndarray (5, 2) float64', 'list of 2 (the first: int)', 'NoneType')
    """
    kind = type(data).__name__
    if isinstance(data, (Tensor, np.ndarray)):
        return f"{kind} {tuple(data.shape)} {str(data.dtype).removeprefix('torch.')}"
    if isinstance(data, (list, tuple)):
        return f"{kind} of {len(data)}" + (f" (the first: {describe(data[0])})" if data else "")
    if isinstance(data, Mapping):
        return f"{kind} of {', '.join(map(str, data)) or 'nothing'}"
    return kind


def splits_in(data: Any) -> tuple[Any, Any] | None:
    """Return the sets for training and for testing, if there are two."""
    if isinstance(data, Mapping):
        named = {split: data[key] for key in data if (split := split_of(str(key))) is not None}
        held_out = [rank for rank in sorted(named) if rank]
        if 0 not in named or not held_out:
            raise InputError(f"data is a {describe(data)}, but a mapping needs the keys train and test: {REMEDY}")
        return named[0], named[held_out[0]]
    if not isinstance(data, (tuple, list)) or is_labelled(data):
        return None
    if isinstance(data, tuple):
        if len(data) == 2:
            return data[0], data[1]
        if any(map(_is_set, data)) or all(map(_is_stack, data)):
            raise InputError(f"data is a {describe(data)}, but a tuple is (train, test) or (images, labels): {REMEDY}")
        return None
    if any(map(_is_set, data)) or _are_stacks(data):
        if len(data) != 2:
            raise InputError(
                f"data is a {describe(data)}, {len(data)} sets of images: join them (torch.cat), or give two, for "
                "training and testing"
            )
        return data[0], data[1]
    return None


def _is_set(data: Any) -> bool:
    """Return whether this is several images for certain, and not one."""
    if isinstance(data, (Tensor, np.ndarray)):
        return data.ndim == 4
    return isinstance(data, torch_data().Dataset | torch_data().DataLoader) or hasattr(data, "read")


def _is_stack(data: Any) -> bool:
    """Return whether an array (N, H, W) cannot be one image, whose channels are few."""
    return isinstance(data, (Tensor, np.ndarray)) and data.ndim == 3 and min(data.shape[0], data.shape[-1]) > 4


def _are_stacks(data: list[Any]) -> bool:
    """Return whether a list is of arrays (N, H, W), each of several images: two of them, or more of several lengths."""
    return all(map(_is_stack, data)) and (len(data) == 2 or len({len(stack) for stack in data}) > 1)


def is_labelled(data: Any) -> bool:
    """Return whether this is a tuple of images and their labels: as many numbers, words or one-hot rows."""
    if not isinstance(data, tuple) or len(data) != 2 or not hasattr(data[0], "__len__"):
        return False
    images, labels = data
    if isinstance(images, (str, os.PathLike)) or not hasattr(labels, "__len__") or isinstance(labels, (str, Mapping)):
        return False
    if isinstance(labels, (Tensor, np.ndarray)):
        flat = labels.ndim == 1 or (labels.ndim == 2 and getattr(images, "ndim", 4) > 2)
        return flat and len(labels) == len(images)
    if not isinstance(labels, (list, tuple)) or len(labels) != len(images) or not labels:
        return False
    words = isinstance(images, (Tensor, np.ndarray))  # beside a list of paths, words are paths too
    return all(isinstance(label, (int, float, np.generic)) or (words and isinstance(label, str)) for label in labels)
