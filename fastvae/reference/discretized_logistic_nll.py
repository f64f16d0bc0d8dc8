"""Minus the log-probability of 8-bit pixels under a discretised logistic decoder."""

from torch import Tensor

from ._logistic import log_bin
from ._reduce import accumulation_dtype, reduce, unit_interval


def discretized_logistic_nll(
    mean: Tensor, log_scale: Tensor, target: Tensor, *, reduction: str = "batchmean", weight: float | Tensor = 1.0
) -> Tensor:
    """``-sum(log(sigmoid(a) - sigmoid(b)))`` in nats; a, b: the ends of a bin, from the mean, in scales."""
    dtype = accumulation_dtype(mean.dtype)
    return reduce(-log_bin(mean.to(dtype), log_scale.to(dtype), unit_interval(target, dtype)), reduction, weight)
