"""Minus the log-probability of 8-bit pixels under a discretised logistic decoder."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ._reduce import accumulation_dtype, reduce, unit_interval


def discretized_logistic_nll(
    mean: Tensor, log_scale: Tensor, target: Tensor, *, reduction: str = "batchmean", weight: float | Tensor = 1.0
) -> Tensor:
    """``-sum(log(sigmoid(a) - sigmoid(b)))`` in nats; a and b are the ends of the pixel's bin, in scales from the mean.

    ``log(sigmoid(a) - sigmoid(b)) = logsigmoid(a) + logsigmoid(-b) + log(1 - exp(b - a))``, where nothing cancels; of
    the bins of 0 and 255, which reach to infinity, one term is left.
    """
    dtype = accumulation_dtype(mean.dtype)
    x, inverse = unit_interval(target, dtype), torch.exp(-log_scale.to(dtype))
    error = x - mean.to(dtype)
    above, below = logsigmoid((error + 1 / 510) * inverse), logsigmoid(-(error - 1 / 510) * inverse)
    inside = above + below + torch.log(-torch.expm1(-inverse / 255))
    return reduce(-torch.where(target == 0, above, torch.where(target == 255, below, inside)), reduction, weight)
