"""Minus the log-likelihood of 8-bit pixels under a mixture of discretized logistics, as in PixelCNN++."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ._reduce import accumulation_dtype, reduce, unit_interval

_HALF_BIN = 1 / 510
_FLOOR = -7 - math.log(2)  # of the log-scales: -7 where pixels span [-1, 1], as in PixelCNN++


def _log_bin(mean: Tensor, log_scale: Tensor, x: Tensor) -> Tensor:
    """Logarithm of the probability that a logistic gives to [x - 1/510, x + 1/510], or beyond for 0 and 1."""
    inverse = torch.exp(-log_scale)
    log_below = F.logsigmoid((x - mean + _HALF_BIN) * inverse)
    log_above = F.logsigmoid((mean - x + _HALF_BIN) * inverse)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(b - a)): no difference of two numbers near 1.
    inside = log_below + log_above + torch.log(-torch.expm1(-2 * _HALF_BIN * inverse))
    log_p = torch.where(x < _HALF_BIN, log_below, torch.where(x > 1 - _HALF_BIN, log_above, inside))
    return log_p + 0 * (mean + log_scale)  # an infinite parameter is an error to be seen, not a probability of 0


def discretized_logistic_mixture_nll(
    parameters: Tensor,
    target: Tensor,
    mixtures: int,
    *,
    reduction: str = "batchmean",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """``-sum(log sum_k pi_k prod_c P(x_c | mean_kc, scale_kc))`` in nats; ``ops`` has the order of the parameters."""
    dtype, channels = accumulation_dtype(parameters.dtype), target.shape[1]
    couplings = channels * (channels - 1) // 2
    x = unit_interval(target, dtype).unsqueeze(2)  # (B, C, 1, ...)
    sizes = [mixtures, channels * mixtures, channels * mixtures, couplings * mixtures]
    logits, *parts = parameters.to(dtype).split(sizes, 1)
    means, log_scales, coefficients = (
        part.unflatten(1, (-1, mixtures)).unbind(1) if n else () for part, n in zip(parts, sizes[1:], strict=True)
    )
    log_p, pairs = torch.log_softmax(logits, 1), iter(coefficients)
    for c in range(channels):
        # A channel's mean moves with the channels before it, centred: r -> g; r -> b, g -> b.
        mean = sum((torch.tanh(next(pairs)) * (x[:, before] - 0.5) for before in range(c)), means[c])
        log_p = log_p + _log_bin(mean, log_scales[c].clamp(min=_FLOOR), x[:, c])
    return reduce(-torch.logsumexp(log_p, 1), reduction, weight)
