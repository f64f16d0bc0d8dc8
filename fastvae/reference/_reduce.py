"""The type of the computation and the reduction, shared by all losses."""

import torch
from torch import Tensor


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp64 stays fp64; everything else is computed and summed in fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unit_interval(target: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels as numbers: uint8 is read as ``x / 255`` (a true division, in every backend)."""
    x = target.to(dtype)
    return x / 255 if target.dtype == torch.uint8 else x


def clamped(logvar: Tensor, clamp: tuple[float, float] | None) -> Tensor:
    """The log-variance within the closed interval. Its slope is 0 outside, 1 on the bounds, and a NaN stays NaN.

    Not ``torch.clamp``: releases of torch differ in its slope on the bounds (2.14 has 0), and a NaN's is 0.
    """
    if clamp is None:
        return logvar
    low, high = clamp
    return torch.where(logvar < low, low, torch.where(logvar > high, high, logvar))


def reduce(elementwise: Tensor, reduction: str, weight: float | Tensor) -> Tensor:
    """Sum over the event dimensions, then over the batch as torch's ``reduction`` words say."""
    per_sample = elementwise.flatten(1).sum(1) if elementwise.ndim > 1 else elementwise
    if reduction == "none":
        loss = per_sample
    elif reduction == "sum":
        loss = per_sample.sum()
    elif reduction == "batchmean":
        loss = per_sample.sum() / per_sample.shape[0]
    else:
        raise ValueError(f"reduction must be 'batchmean', 'sum' or 'none', not {reduction!r}")
    return (loss * weight).to(loss.dtype)  # a 0-d weight in fp64 would make the loss fp64
