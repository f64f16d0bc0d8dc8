"""The importance-weighted bound (Burda et al. 2016, "Importance weighted autoencoders", equation 8)."""

import math

import torch
from torch import Tensor

from ._reduce import accumulation_dtype, reduce


def importance_weighted_nll(
    nll: Tensor, log_ratio: Tensor, *, reduction: str = "batchmean", weight: float | Tensor = 1.0
) -> Tensor:
    """``-(logsumexp_k(-nll - log_ratio) - log K)`` of each row, in nats."""
    dtype = accumulation_dtype(nll.dtype)
    log_weights = -nll.to(dtype) - log_ratio.to(dtype)
    return reduce(math.log(nll.shape[1]) - torch.logsumexp(log_weights, 1), reduction, weight)
