"""Validation shared by the operators. A message tells what is wrong, both offending values, and what to do."""

import math
from numbers import Real
from typing import Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from . import _library

Reduction = Literal["batchmean", "sum", "none"]
REDUCTIONS = {"none": 0, "sum": 1, "batchmean": 2}  # the codes that the kernels know; csrc/operator.h has the same

ROUNDING = 1e-5  # by so much floats may leave [0, 1]: a resize in fp32 gives 1.0000002, a grey level is 4e-3

_FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def tensors(**named: object) -> None:
    """Check that arguments, given by their names, are dense tensors."""
    for name, value in named.items():
        if isinstance(value, Tensor):
            if value.layout != torch.strided:
                raise TypeError(f"{name} must be dense, not {value.layout}: convert it with .to_dense()")
        else:
            raise TypeError(f"{name} must be a tensor, not {_kind(value)}: convert it with torch.as_tensor({name})")


def constant(name: str, value: object) -> None:
    """Check a number that has no gradient."""
    if isinstance(value, Tensor) and value.requires_grad:
        raise ValueError(f"{name} requires a gradient, but is a constant here: pass {name}.detach()")
    one_number(name, value)


def positive(name: str, value: float) -> None:
    """Check a constant that is positive and finite."""
    constant(name, value)
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive finite number, not {value}")


def one_number(name: str, value: object) -> None:
    """Check that an argument is a number, or a tensor of one."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise TypeError(f"{name} must be a number, not a tensor of shape {tuple(value.shape)}")
    elif not isinstance(value, (Real, torch.SymFloat, torch.SymInt)):
        raise TypeError(f"{name} must be a number, not {_kind(value)}")


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _floating(name: str, tensor: Tensor) -> None:
    tensors(**{name: tensor})
    if tensor.dtype not in _FLOATING:
        raise TypeError(f"{name} must be fp32, bf16, fp16 or fp64, not {tensor.dtype}")


def pair(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """Check that two tensors have one shape (B, ...) and one device, and the first a supported floating type."""
    _floating(first_name, first)
    tensors(**{second_name: second})
    if first.shape != second.shape:
        raise ValueError(
            f"{first_name} has shape {tuple(first.shape)}, but {second_name} has {tuple(second.shape)}: "
            "both need the same shape (B, ...)"
        )
    if first.ndim == 0:
        raise ValueError(f"{first_name} and {second_name} need a batch dimension (B, ...), but have shape ()")
    if first.is_cpu and second.is_cpu:  # makes no device objects, which cost 1 us each
        return
    if first.device != second.device:
        raise ValueError(f"{first_name} is on {first.device}, but {second_name} is on {second.device}: move one")


def same_dtype(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    if first.dtype != second.dtype:
        raise TypeError(f"{first_name} is {first.dtype}, but {second_name} is {second.dtype}: both need the same type")


def latents(mu: Tensor, logvar: Tensor, prefix: str = "") -> tuple[Tensor, Tensor]:
    """Check mu and logvar, named with a prefix; return them with dense rows.

    The row stride may be anything: the halves of a packed head, or a vector expanded over the batch, need no copy.
    """
    pair(f"{prefix}mu", mu, f"{prefix}logvar", logvar)
    same_dtype(f"{prefix}mu", mu, f"{prefix}logvar", logvar)
    return _dense_rows(mu), _dense_rows(logvar)


def bounds(clamp: tuple[float, float] | None) -> tuple[float, float]:
    """Return the closed interval of a clamp for the schemas: that of all numbers for None."""
    if clamp is None:
        return -math.inf, math.inf
    if not isinstance(clamp, (tuple, list)) or len(clamp) != 2:
        raise TypeError(f"clamp must be (low, high) or None, not {clamp!r}")
    low, high = clamp
    one_number("clamp[0]", low)
    one_number("clamp[1]", high)
    if not low <= high:
        raise ValueError(f"clamp must be (low, high) with low <= high, not ({low}, {high})")
    return float(low), float(high)


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
    if target.dtype == torch.bool:
        target = _black_and_white(target)
    if target.dtype not in (torch.uint8, *_FLOATING):
        raise TypeError(
            f"target must be uint8 (0..255, read as x/255), bool or a floating type, not {target.dtype}: "
            "convert it with .to(torch.uint8) if its pixels are 0..255, or with .float() if they are in [0, 1]"
        )
    if target.requires_grad:
        raise ValueError("target requires a gradient, but the likelihood has none for it: pass target.detach()")
    if target.dtype not in (torch.uint8, torch.float32, dtype):
        target = target.to(dtype)
    return target.contiguous()


def last_layer(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check a layer and the target of its outputs; return hidden in the type of the products, and target as (B, O).

    Under autocast this is autocast's type, as for ``torch.nn.Linear``, and the parameters may have another.
    """
    _floating("hidden", hidden)
    tensors(weight=weight, target=target)
    if bias is not None:
        tensors(bias=bias)
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


def eight_bits(target: Tensor) -> Tensor:
    """Return a target of 8-bit pixels as it is, and one of bool as 0 and 255; refuse others."""
    tensors(target=target)
    if target.dtype == torch.bool:
        return _black_and_white(target)
    if target.dtype != torch.uint8:
        raise TypeError(
            f"target must be uint8 (0..255), the pixels of a discrete likelihood, not {target.dtype}: "
            "pass the images as they were read"
        )
    return target


def _black_and_white(target: Tensor) -> Tensor:
    """Return a bool target as uint8: 0 and 255, which every backend reads as exactly 0 and 1."""
    return target.to(torch.uint8) * 255


def _readable(target: Tensor) -> bool:
    """True if the values of the target may be read.

    On an accelerator reading them would stall the queue, torch.func forbids it, and a traced step has no values.
    """
    if torch.compiler.is_compiling() or isinstance(target, FakeTensor):
        return False
    return target.device.type == "cpu" and not _library.transformed()


def unit_interval(target: Tensor) -> None:
    """Check that Bernoulli targets are in [0, 1], up to rounding: 1e-5, or two eps of a narrow type.

    A target a little outside is read as it is, on every device: the loss is linear in it.
    """
    tensors(target=target)
    if not (target.is_floating_point() and _readable(target) and target.numel()):
        return
    low, high = (bound.item() for bound in torch.aminmax(target))
    margin = max(ROUNDING, 2 * torch.finfo(target.dtype).eps)
    if low < -margin or high > 1 + margin:
        remedy = "divide 8-bit pixels by 255, or pass them as uint8"
        if low < 0 or high <= 1.5:
            remedy = "leave out the normalisation to mean and deviation, or use a Gaussian likelihood"
        raise ValueError(
            f"target spans [{low:.9g}, {high:.9g}], but a Bernoulli likelihood needs pixels in [0, 1]: {remedy}"
        )


def _one_device(name: str, tensor: Tensor, target: Tensor) -> None:
    if tensor.device != target.device:
        raise ValueError(f"{name} is on {tensor.device}, but target is on {target.device}: move one")


def classes(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check logits (B, K, ...) and class indices (B, ...); return both dense."""
    _floating("logits", logits)
    tensors(target=target)
    if target.dtype == torch.bool:  # a mask
        target = target.to(torch.uint8)
    if target.dtype not in (torch.uint8, torch.int64):
        raise TypeError(f"target must be class indices in uint8 or int64, not {target.dtype}: convert it with .long()")
    if logits.ndim < 2 or (logits.shape[0], *logits.shape[2:]) != tuple(target.shape):
        raise ValueError(
            f"logits has shape {tuple(logits.shape)}, but target has {tuple(target.shape)}: "
            "with K classes, they need (B, K, ...) and (B, ...)"
        )
    _one_device("logits", logits, target)
    count = logits.shape[1]
    if _readable(target) and target.numel() and not (target.dtype == torch.uint8 and count >= 256):
        low, high = (bound.item() for bound in torch.aminmax(target))
        if low < 0 or high >= count:
            raise ValueError(
                f"target spans [{low}, {high}], but logits of shape {tuple(logits.shape)} have the classes "
                f"0 to {count - 1}: more logits, or other indices"
            )
    return logits.contiguous(), target.contiguous()


def mixture(parameters: Tensor, target: Tensor, mixtures: int) -> tuple[Tensor, Tensor]:
    """Check the parameters of a mixture of logistics and its 8-bit target (B, C, ...); return both dense."""
    _floating("parameters", parameters)
    target = eight_bits(target)
    if not isinstance(mixtures, int):
        raise TypeError(f"mixtures must be a whole number, not {_kind(mixtures)}")
    if mixtures < 1:
        raise ValueError(f"mixtures must be at least 1, not {mixtures}")
    if target.ndim < 2 or target.shape[1] not in (1, 3):
        raise ValueError(f"target has shape {tuple(target.shape)}, but must be (B, C, ...) with 1 or 3 channels C")
    batch, channels, *event = target.shape
    expected = (batch, mixtures * (1 + 2 * channels + channels * (channels - 1) // 2), *event)
    if tuple(parameters.shape) != expected:
        raise ValueError(
            f"parameters has shape {tuple(parameters.shape)}, but {mixtures} mixtures for a target of shape "
            f"{tuple(target.shape)} need {expected}"
        )
    _one_device("parameters", parameters, target)
    return parameters.contiguous(), target.contiguous()


def reduction_code(reduction: str) -> int:
    try:
        return REDUCTIONS[reduction]
    except (KeyError, TypeError):  # a list cannot be looked up
        raise ValueError(f"reduction must be 'batchmean', 'sum' or 'none', not {reduction!r}") from None


def split_weight(weight: float | Tensor, like: Tensor, name: str = "weight") -> tuple[float, Tensor | None]:
    """Split a weight into a host factor and, for a 0-d tensor, a factor that the kernel reads on the device."""
    if not isinstance(weight, Tensor):
        one_number(name, weight)
        if not weight <= math.inf:  # NaN; math.isnan fails in torch.compile, where a changing float is a symbol
            raise ValueError(f"{name} is NaN: it must be a number")
        return float(weight), None
    if weight.ndim != 0:
        raise ValueError(f"{name} has shape {tuple(weight.shape)}, but must be a number or a 0-d tensor")
    if weight.requires_grad:
        raise ValueError(f"{name} requires a gradient, but is a constant factor here: pass {name}.detach()")
    if weight.device != like.device:
        raise ValueError(f"{name} is on {weight.device}, but the inputs are on {like.device}: move it there once")
    return 1.0, weight if weight.dtype == torch.float64 else weight.to(torch.float32)
