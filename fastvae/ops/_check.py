"""Validation shared by the operators: what is wrong, both offending values, and what to do."""

import math
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["batchmean", "sum", "none"]
REDUCTIONS = {"none": 0, "sum": 1, "batchmean": 2}  # the codes that the kernels know; csrc/operator.h has the same

_FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _floating(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _FLOATING:
        raise TypeError(f"{name} must be fp32, bf16, fp16 or fp64, not {tensor.dtype}")


def pair(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """Two tensors of one shape (B, ...) and one device, the first of a supported floating type."""
    _floating(first_name, first)
    if first.shape != second.shape:
        raise ValueError(
            f"{first_name} has shape {tuple(first.shape)}, but {second_name} has {tuple(second.shape)}: "
            "both need the same shape (B, ...)"
        )
    if first.ndim == 0:
        raise ValueError(f"{first_name} and {second_name} need a batch dimension (B, ...), but have shape ()")
    if first.device != second.device:
        raise ValueError(f"{first_name} is on {first.device}, but {second_name} is on {second.device}: move one")


def latents(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """Check mu and logvar; return them with dense rows (a row stride is free, so a packed head needs no copy)."""
    pair("mu", mu, "logvar", logvar)
    if mu.dtype != logvar.dtype:
        raise TypeError(f"mu is {mu.dtype}, but logvar is {logvar.dtype}: both need the same type")
    return _dense_rows(mu), _dense_rows(logvar)


def _dense_rows(tensor: Tensor) -> Tensor:
    expected = 1
    for size, stride in zip(reversed(tensor.shape[1:]), reversed(tensor.stride()[1:]), strict=True):
        if size != 1 and stride != expected:
            return tensor.contiguous()
        expected *= size
    return tensor


def pixels(name: str, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check a prediction and its target; return both dense, the target as uint8, fp32 or the prediction's type."""
    pair(name, prediction, "target", target)
    return prediction.contiguous(), _pixel_target(target, prediction.dtype)


def _pixel_target(target: Tensor, dtype: torch.dtype) -> Tensor:
    if target.dtype not in (torch.uint8, *_FLOATING):
        raise TypeError(
            f"target must be uint8 (0..255, read as x/255) or a floating type, not {target.dtype}: "
            "convert it with .to(torch.uint8) or .float()"
        )
    if target.requires_grad:
        raise ValueError("target requires a gradient, but the likelihood has none for it: pass target.detach()")
    if target.dtype not in (torch.uint8, torch.float32, dtype):
        target = target.to(dtype)
    return target.contiguous()


def last_layer(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check a layer and the target of its outputs; return hidden in the type of the products, and target as (B, O).

    Under autocast that type is autocast's, as for ``torch.nn.Linear``, and the parameters may have another.
    """
    _floating("hidden", hidden)
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden has shape {tuple(hidden.shape)}, but weight has {tuple(weight.shape)}: "
            "they need (B, H) and (O, H), as in torch.nn.Linear"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias has shape {tuple(bias.shape)}, but weight has {tuple(weight.shape)}: they need (O,) and (O, H)"
        )
    outputs = (hidden.shape[0], weight.shape[0])
    if target.ndim == 0 or (target.shape[0], math.prod(target.shape[1:])) != outputs:
        raise ValueError(
            f"target has shape {tuple(target.shape)}, but the layer gives {outputs}: "
            "target needs (B, ...) with O elements a row"
        )
    device = hidden.device
    autocast = torch.is_autocast_enabled(device.type)
    for name, tensor in (("weight", weight), ("bias", bias), ("target", target)):
        if tensor is not None and tensor.device != device:
            raise ValueError(f"hidden is on {device}, but {name} is on {tensor.device}: move one")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None or tensor.dtype == hidden.dtype:
            continue
        if not autocast or torch.float64 in (tensor.dtype, hidden.dtype):
            raise TypeError(f"hidden is {hidden.dtype}, but {name} is {tensor.dtype}: both need the same type")
        _floating(name, tensor)
    if autocast and hidden.dtype != torch.float64:
        hidden = hidden.to(torch.get_autocast_dtype(device.type))
    return hidden, _pixel_target(target.reshape(outputs), hidden.dtype)


def unit_interval(target: Tensor) -> None:
    """Refuse Bernoulli targets outside [0, 1]; not on an accelerator, where looking would stall the queue."""
    readable = target.device.type == "cpu" and not torch.compiler.is_compiling()
    if not (readable and target.is_floating_point() and target.numel()):
        return
    low, high = (bound.item() for bound in torch.aminmax(target))
    if low < 0 or high > 1:
        raise ValueError(
            f"target spans [{low:g}, {high:g}], but a Bernoulli likelihood needs pixels in [0, 1]: "
            "leave out the normalisation to mean and deviation, or use a Gaussian likelihood"
        )


def reduction_code(reduction: str) -> int:
    try:
        return REDUCTIONS[reduction]
    except KeyError:
        raise ValueError(f"reduction must be 'batchmean', 'sum' or 'none', not {reduction!r}") from None


def split_weight(weight: float | Tensor, device: torch.device, name: str = "weight") -> tuple[float, Tensor | None]:
    """A weight as a host factor and, for a 0-d tensor, a factor that is read on the device when the kernel runs."""
    if not isinstance(weight, Tensor):
        if not weight <= math.inf:  # is it NaN? math.isnan would not do: to torch.compile a changing float is a symbol
            raise ValueError(f"{name} is NaN: it must be a number")
        return float(weight), None
    if weight.ndim != 0:
        raise ValueError(f"{name} has shape {tuple(weight.shape)}, but must be a number or a 0-d tensor")
    if weight.requires_grad:
        raise ValueError(f"{name} requires a gradient, but is a constant factor here: pass {name}.detach()")
    if weight.device != device:
        raise ValueError(f"{name} is on {weight.device}, but the inputs are on {device}: move it there once")
    return 1.0, weight.to(torch.float32)
