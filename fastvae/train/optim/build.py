"""The optimiser of a run: any class of ``torch.optim`` by name, in its fastest form for the device."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fastvae.utils.errors import InputError

from .adam import Adam
from .weights import Weights

_REFUSED = {
    "lbfgs": "evaluates the loss several times a step",
    "sparseadam": "takes sparse gradients only",
    "muon": "takes matrices only, and a network has biases",
}
# Options that the trainer sets itself, or that no run needs.
_OWN = {"params", "lr", "foreach", "fused", "capturable", "differentiable", "maximize"}
_CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
}


def make_optimizer(weights: Weights, name: str, options: Mapping[str, float], lr: float) -> torch.optim.Optimizer:
    """Build an optimiser by name; :func:`check_optimizer` has checked the arguments."""
    kind = _CLASSES[name]
    known = inspect.signature(kind).parameters
    on_gpu = _is_on_gpu(weights.parameters[0])
    if name in ("adam", "adamw") and not on_gpu and not options.get("amsgrad"):
        # On the CPU our own Adam takes low-precision gradients as they are, and writes the low-precision copies.
        settings = {"decoupled_weight_decay": name == "adamw", "weight_decay": known["weight_decay"].default}
        settings |= {key: value for key, value in _options(name, options).items() if key != "amsgrad"}
        return Adam(weights.parameters, lr=lr, working=weights.low_precision_copies, **settings)
    # In the oldest supported torch, Adagrad's fused form is for the CPU alone.
    fused = "fused" in known and not (on_gpu and name == "adagrad")
    form: dict[str, Any] = {"fused" if fused else "foreach": True}
    if on_gpu and "capturable" in known:
        form["capturable"] = True
    return kind(weights.parameters, **{**_options(name, options), **form, "lr": lr})


def start_momentum(optimizer: torch.optim.SGD) -> None:
    """Allocate SGD's momentum as zeros, which its first step would do.

    Its fused form leaves the momentum as uninitialized memory if a loss scale skips that first step.
    """
    for group in optimizer.param_groups:
        if group["momentum"] and not group["dampening"]:  # the first step does not apply dampening: zeros would differ
            for weight in group["params"]:
                zeros = torch.zeros_like(weight, memory_format=torch.preserve_format)
                optimizer.state[weight]["momentum_buffer"] = zeros


def takes_device_rate(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the learning rate may be a tensor on the device.

    It may on a GPU, where a number from the host would be frozen into a CUDA graph. On the CPU a number is as good, and
    most foreach optimisers refuse a tensor there.
    """
    group = optimizer.param_groups[0]
    return _is_on_gpu(group["params"][0]) and (group.get("capturable", False) or isinstance(optimizer, torch.optim.SGD))


def _is_on_gpu(weight: torch.Tensor) -> bool:
    return weight.is_cuda


def check_optimizer(name: str, options: Mapping[str, float], lr: float) -> None:
    """Raise InputError for an unknown optimiser or option, or a value that the optimiser refuses."""
    if name not in _CLASSES or name in _REFUSED:
        why = _REFUSED.get(name, "is not in torch.optim")
        raise InputError(f"--optimizer {name} {why}: use one of {', '.join(_usable())}")
    known = _known(name)
    for option, value in options.items():
        if option not in known:
            having = [other for other in _usable() if option in _known(other)]
            other = f", or use another --optimizer ({', '.join(having)})" if having else ""
            raise InputError(f"--optimizer-options {option} is not an option of {name}: use {', '.join(known)}{other}")
        if isinstance(known[option], bool) and value not in (0, 1):
            raise InputError(f"--optimizer-options {option} is {value:g}, but it is a switch: use 0 or 1")
        if not math.isfinite(value):
            raise InputError(f"--optimizer-options {option} is {value}: it must be a finite number")
    if not options:  # its own defaults are valid, and building one loads torch._dynamo: 2 s before processes start
        return
    try:
        _CLASSES[name]([nn.Parameter(torch.zeros(1))], **{**_options(name, options), "lr": lr})
    except (ValueError, OverflowError) as error:
        raise InputError(f"--optimizer-options: {name} says: {error}") from error


def _usable() -> list[str]:
    return sorted(_CLASSES.keys() - _REFUSED.keys())


def _known(name: str) -> dict[str, float]:
    """Return the options of a class that are numbers or switches (given as 0 and 1), with their defaults."""
    parameters = inspect.signature(_CLASSES[name]).parameters
    return {
        key: parameter.default
        for key, parameter in parameters.items()
        if key not in _OWN and isinstance(parameter.default, float | int)
    }


def _options(name: str, options: Mapping[str, float]) -> dict[str, Any]:
    known = _known(name)
    return {key: bool(value) if isinstance(known[key], bool) else value for key, value in options.items()}
