"""Minus the log-likelihood of 8-bit pixels under a mixture of discretized logistics, as in PixelCNN++."""

import math

import torch
from torch import Tensor

from ._logistic import log_bin
from ._reduce import accumulation_dtype, reduce, unit_interval

_FLOOR = -7 - math.log(2)  # the least log-scale: PixelCNN++'s -7, whose pixels span [-1, 1]


def discretized_logistic_mixture_nll(
    parameters: Tensor,
    target: Tensor,
    mixtures: int,
    *,
    reduction: str = "batchmean",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """``-sum(log sum_k pi_k prod_c P(x_c | mean_kc, scale_kc))`` in nats; ``ops`` has the order of the parameters."""
    dtype = accumulation_dtype(parameters.dtype)
    channels = target.shape[1]
    couplings = channels * (channels - 1) // 2
    x = unit_interval(target, dtype).unsqueeze(2)  # (B, C, 1, ...)
    sizes = [mixtures, channels * mixtures, channels * mixtures, couplings * mixtures]
    logits, *parts = parameters.to(dtype).split(sizes, 1)
    means, log_scales, coefficients = (
        part.unflatten(1, (-1, mixtures)).unbind(1) if n else () for part, n in zip(parts, sizes[1:], strict=True)
    )
    log_p = torch.log_softmax(logits, 1)
    pairs = iter(coefficients)
    for c in range(channels):
        # A channel's mean moves with the channels before it, centred: r -> g; r -> b, g -> b.
        mean = sum((torch.tanh(next(pairs)) * (x[:, before] - 0.5) for before in range(c)), means[c])
        log_p = log_p + log_bin(mean, log_scales[c].clamp(min=_FLOOR), x[:, c])
    return reduce(-torch.logsumexp(log_p, 1), reduction, weight)
