"""A check of the optimiser's state in a checkpoint, which may be somebody else's file."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastvae.utils.errors import InputError

# The device decides these, and the schedule.
FORM = ("fused", "foreach", "capturable", "lr")
_REMEDY = "use another checkpoint, or begin anew with another --out"


def check_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], step: int) -> None:
    """Raise InputError unless a ``state_dict``, saved after ``step`` steps, has all that this optimiser goes on from.

    The parameters are the same ones, and so are the options, which a run's settings decide; each parameter has every
    entry that one step of such an optimiser makes for it, in the same shape. torch itself takes a state with nothing in
    it, and begins anew.
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
            is_elementwise = shape == _sample(weight.ndim).shape  # else one number, or of a shape that is its own
            needed = weight.shape if is_elementwise else shape
            if (is_elementwise or not shape) and _shape(value) != needed:
                raise InputError(
                    f"the checkpoint's optimiser has {key} of parameter {index} in shape {tuple(_shape(value))}, but "
                    f"needs {tuple(needed)}: {_REMEDY}"
                )


def _plain(option: object) -> object:
    """An option as JSON has it."""
    if isinstance(option, Tensor):
        return option.item()
    return list(option) if isinstance(option, tuple) else option


def _sample(ndim: int) -> nn.Parameter:
    return nn.Parameter(torch.ones((2,) * ndim))


def _kept(optimizer: torch.optim.Optimizer, ndim: int) -> dict[str, torch.Size]:
    """The entries that such an optimiser keeps for a small parameter of ``ndim`` dimensions, with their shapes."""
    known = inspect.signature(type(optimizer)).parameters
    options = {key: value for key, value in optimizer.defaults.items() if key in known and key not in FORM}
    weight = _sample(ndim)
    weight.grad = torch.zeros_like(weight)
    twin = type(optimizer)([weight], **options)
    twin.step()
    return {key: _shape(value) for key, value in twin.state[weight].items() if value is not None}


def _shape(value: object) -> torch.Size:
    return value.shape if isinstance(value, Tensor) else torch.Size()
