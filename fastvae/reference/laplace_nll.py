"""Minus the log-likelihood of a Laplace decoder with one fixed scale."""

import math

import torch
from torch import Tensor

from ._reduce import accumulation_dtype, reduce, unit_interval


def laplace_nll(
    location: Tensor,
    target: Tensor,
    scale: float = 1.0,
    *,
    full: bool = False,
    reduction: str = "batchmean",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """``sum(|location - x|) / scale`` in nats, plus ``log(2 scale)`` an element if ``full``."""
    dtype = accumulation_dtype(location.dtype)
    error = location.to(dtype) - unit_interval(target, dtype)
    # |error|, whose gradient at NaN is NaN: torch's own is 0, which would hide it.
    sign = torch.where(error.isnan(), error, error.sign()).detach()
    constant = math.log(2 * scale) if full else 0.0
    return reduce(error * sign / scale + constant, reduction, weight)
