"""Validate the optimiser's state in a checkpoint, which anybody may have made."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastvae.utils.errors import InputError

# Options that the device or the schedule decides, not the checkpoint.
FORM = ("fused", "foreach", "capturable", "lr")
_REMEDY = "use another checkpoint, or start a new run with another --out"


def check_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], step: int) -> None:
    """Raise InputError unless this optimiser can resume from a ``state_dict`` that was saved after ``step`` steps.

    The parameters must be the same, and so must the options, which a run's settings decide. Each parameter needs every
    entry that a step of such an optimiser makes, in the same shape. torch itself accepts an empty state and starts
    afresh.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [group.get("params") for group in saved["param_groups"]] != [group["params"] for group in groups]:
        raise InputError(f"the checkpoint's optimiser has other parameters than the one here: {_REMEDY}")
    for own, found in zip(groups, saved["param_groups"], strict=True):
        for key, value in own.items():
            if key not in FORM and key in found and _plain(found[key]) != _plain(value):
                raise InputError(f"the checkpoint's optimiser has {key} = {found[key]!r}, not {value!r}: {_REMEDY}")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if extra := saved["state"].keys() - range(len(weights)):
        raise InputError(
            f"the checkpoint's optimiser has state of parameter {min(extra)}, which is not here: {_REMEDY}"
        )
    kept: dict[int, dict[str, torch.Size]] = {}
    for index, weight in enumerate(weights if step else ()):
        if weight.ndim not in kept:
            kept[weight.ndim] = _kept(optimizer, weight.ndim)
        entries = saved["state"].get(index, {})
        for key, shape in kept[weight.ndim].items():
            value = entries.get(key)
            if value is None:
                raise InputError(f"the checkpoint's optimiser has no {key} of parameter {index}: {_REMEDY}")
            if isinstance(value, Tensor) and not value.is_floating_point():
                raise InputError(
                    f"the checkpoint's optimiser has {key} of parameter {index} in {value.dtype}: {_REMEDY}"
                )
            is_elementwise = shape == _sample(weight.ndim).shape  # else a scalar, or a shape of its own (Adafactor)
            needed = weight.shape if is_elementwise else shape
            if (is_elementwise or not shape) and _shape(value) != needed:
                raise InputError(
                    f"the checkpoint's optimiser has {key} of parameter {index} in shape {tuple(_shape(value))}, but "
                    f"needs {tuple(needed)}: {_REMEDY}"
                )


def _plain(option: object) -> object:
    """Convert an option to what JSON can hold."""
    if isinstance(option, Tensor):
        return option.item()
    return list(option) if isinstance(option, tuple) else option


def _sample(ndim: int) -> nn.Parameter:
    return nn.Parameter(torch.ones((2,) * ndim))


def _kept(optimizer: torch.optim.Optimizer, ndim: int) -> dict[str, torch.Size]:
    """Return the state entries, with their shapes, that a step makes for a small parameter of ``ndim`` dimensions."""
    known = inspect.signature(type(optimizer)).parameters
    options = {key: value for key, value in optimizer.defaults.items() if key in known and key not in FORM}
    weight = _sample(ndim)
    weight.grad = torch.zeros_like(weight)
    sample = type(optimizer)([weight], **options)
    sample.step()
    return {key: _shape(value) for key, value in sample.state[weight].items() if value is not None}


def _shape(value: object) -> torch.Size:
    return value.shape if isinstance(value, Tensor) else torch.Size()
