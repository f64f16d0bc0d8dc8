"""Minus the log-likelihood of a continuous Bernoulli decoder, on logits."""

import torch
from torch import Tensor

from ._reduce import accumulation_dtype, reduce, unit_interval


def continuous_bernoulli_nll(
    logits: Tensor, target: Tensor, *, reduction: str = "batchmean", weight: float | Tensor = 1.0
) -> Tensor:
    """``sum(log((e**l - 1) / l) - l x)`` in nats: the Bernoulli's likelihood, normalised over [0, 1].

    Near 0 the normaliser is 0 / 0, so it is the Taylor series of its even part, ``log(sinh(l / 2) / (l / 2))``.
    """
    dtype = accumulation_dtype(logits.dtype)
    logit = logits.to(dtype)
    x = unit_interval(target, dtype)
    near = logit.abs() < 0.25
    square = torch.where(near, logit, torch.zeros_like(logit)).square()
    even = square * (1 / 24 - square * (1 / 2880 - square * (1 / 181440 - square * (1 / 9676800 - square / 479001600))))
    far = torch.where(near, torch.ones_like(logit), logit)
    log_normaliser = torch.where(near, 0.5 * logit + even, far.relu() + torch.log(-torch.expm1(-far.abs()) / far.abs()))
    return reduce(log_normaliser - logit * x, reduction, weight)
