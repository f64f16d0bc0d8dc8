"""Minus the log-likelihood of a Gaussian decoder under the variance that fits the batch best (sigma-VAE)."""

import math

from torch import Tensor

from ._reduce import accumulation_dtype, unit_interval


def optimal_gaussian_nll(
    mean: Tensor, target: Tensor, *, full: bool = False, reduction: str = "batchmean", weight: float | Tensor = 1.0
) -> Tensor:
    """``D / 2 * (log(mean((mean - x)**2)) + c)`` nats a sample of D elements; if ``full``, c is ``1 + log(2 pi)``."""
    if reduction not in ("batchmean", "sum"):
        raise ValueError(f"reduction must be 'batchmean' or 'sum' for a variance of the whole batch, not {reduction!r}")
    dtype = accumulation_dtype(mean.dtype)
    error = mean.to(dtype) - unit_interval(target, dtype)
    elements = math.prod(mean.shape[1:]) if reduction == "batchmean" else mean.numel()
    constant = 1 + math.log(2 * math.pi) if full else 0.0
    return 0.5 * elements * (error.square().mean().log() + constant) * weight
