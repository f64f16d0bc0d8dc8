"""The optimiser of a run: any class of ``torch.optim`` by its name, in its fastest form for the device."""

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fastvae.utils.errors import InputError

from .adam import Adam
from .master_weights import WorkingWeights

if TYPE_CHECKING:
    from fastvae.train.distributed.fsdp import ShardedWeights

_REFUSED = {
    "lbfgs": "evaluates the loss several times a step",
    "sparseadam": "takes sparse gradients only",
    "muon": "takes matrices only, and a network has biases",
}
# What the trainer itself decides, or what no run needs.
_OWN = {"params", "lr", "foreach", "fused", "capturable", "differentiable", "maximize"}
_CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
}


def make_optimizer(
    weights: "WorkingWeights[Any] | ShardedWeights", name: str, options: Mapping[str, float], lr: float
) -> torch.optim.Optimizer:
    """The optimiser of that name, which :func:`check_optimizer` found good."""
    kind = _CLASSES[name]
    known = inspect.signature(kind).parameters
    on_gpu = _is_on_gpu(weights.parameters[0])
    if name in ("adam", "adamw") and not on_gpu and not options.get("amsgrad"):
        # On the CPU: its step takes low-precision gradients as they come, and writes the copies of the weights.
        settings = {"decoupled_weight_decay": name == "adamw", "weight_decay": known["weight_decay"].default}
        settings |= {key: value for key, value in _options(name, options).items() if key != "amsgrad"}
        return Adam(weights.parameters, lr=lr, working=weights.copies, **settings)
    # Adagrad's fused form is for the CPU alone in the oldest torch that is supported.
    fused = "fused" in known and not (on_gpu and name == "adagrad")
    form: dict[str, Any] = {"fused" if fused else "foreach": True}
    if on_gpu and "capturable" in known:
        form["capturable"] = True
    return kind(weights.parameters, **{**_options(name, options), **form, "lr": lr})


def takes_device_rate(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the learning rate may be a tensor on the device.

    That is so on a GPU, where reading a host's number would break a CUDA graph. On the CPU a number is as good, and
    most foreach forms refuse a tensor there.
    """
    group = optimizer.param_groups[0]
    return _is_on_gpu(group["params"][0]) and (group.get("capturable", False) or isinstance(optimizer, torch.optim.SGD))


def _is_on_gpu(weight: torch.Tensor) -> bool:
    return weight.is_cuda


def check_optimizer(name: str, options: Mapping[str, float], lr: float) -> None:
    """Raise InputError for an optimiser or an option that there is not, or a value that it refuses."""
    if name not in _CLASSES or name in _REFUSED:
        why = _REFUSED.get(name, "is not in torch.optim")
        usable = ", ".join(sorted(_CLASSES.keys() - _REFUSED.keys()))
        raise InputError(f"--optimizer {name} {why}: use one of {usable}")
    known = _known(name)
    for option, value in options.items():
        if option not in known:
            raise InputError(f"--optimizer-options {option} is no option of {name}: it has {', '.join(known)}")
        if isinstance(known[option], bool) and value not in (0, 1):
            raise InputError(f"--optimizer-options {option} is {value:g}, but it is a switch: use 0 or 1")
        if not math.isfinite(value):
            raise InputError(f"--optimizer-options {option} is {value}: it must be a finite number")
    if not options:  # a class takes its own defaults, and to make one loads torch._dynamo: 2 s before processes start
        return
    try:
        _CLASSES[name]([nn.Parameter(torch.zeros(1))], **{**_options(name, options), "lr": lr})
    except (ValueError, OverflowError) as error:
        raise InputError(f"--optimizer-options: {name} says: {error}") from error


def _known(name: str) -> dict[str, float]:
    """The options of a class that are numbers or, as 0 and 1, switches; with their defaults."""
    parameters = inspect.signature(_CLASSES[name]).parameters
    return {
        key: parameter.default
        for key, parameter in parameters.items()
        if key not in _OWN and isinstance(parameter.default, float | int)
    }


def _options(name: str, options: Mapping[str, float]) -> dict[str, Any]:
    known = _known(name)
    return {key: bool(value) if isinstance(known[key], bool) else value for key, value in options.items()}
