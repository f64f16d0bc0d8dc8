"""Minus the log-likelihood of a Gaussian decoder with a learned log-variance."""

import math

import torch
from torch import Tensor

from ._reduce import accumulation_dtype, reduce, unit_interval


def gaussian_logvar_nll(
    mean: Tensor,
    logvar: Tensor,
    target: Tensor,
    *,
    full: bool = False,
    reduction: str = "batchmean",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """``sum(((mean - x) * e**(-logvar / 2))**2 + logvar) / 2`` in nats, plus ``log(2 pi) / 2`` an element if ``full``.

    ``logvar``: like ``mean``, or 0-d, one for all. The error is divided by the deviation before it is squared:
    ``e**-logvar`` by itself overflows fp32 at a logvar of -88.8.
    """
    dtype = accumulation_dtype(mean.dtype)
    s = logvar.to(dtype)
    error = (mean.to(dtype) - unit_interval(target, dtype)) * torch.exp(-0.5 * s)
    constant = math.log(2 * math.pi) if full else 0.0
    return reduce(0.5 * (error * error + s + constant), reduction, weight)
