"""Minus the log-likelihood of a Gaussian decoder with one fixed variance."""

import math

from torch import Tensor

from ._reduce import accumulation_dtype, reduce, unit_interval


def gaussian_nll(
    mean: Tensor,
    target: Tensor,
    variance: float = 1.0,
    *,
    full: bool = False,
    reduction: str = "batchmean",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """``sum((mean - x)**2) / (2 * variance)`` in nats, plus ``log(2 pi variance) / 2`` an element if ``full``."""
    dtype = accumulation_dtype(mean.dtype)
    error = mean.to(dtype) - unit_interval(target, dtype)
    constant = 0.5 * math.log(2 * math.pi * variance) if full else 0.0
    return reduce(error * error / (2 * variance) + constant, reduction, weight)
