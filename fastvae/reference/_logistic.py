"""The probability of a bin of 8-bit pixels under a logistic distribution."""

import torch
import torch.nn.functional as F
from torch import Tensor

_HALF_BIN = 1 / 510


def log_bin(mean: Tensor, log_scale: Tensor, x: Tensor) -> Tensor:
    """Logarithm of the probability that a logistic gives to [x - 1/510, x + 1/510], or beyond for 0 and 1."""
    inverse = torch.exp(-log_scale)
    log_below = F.logsigmoid((x - mean + _HALF_BIN) * inverse)
    log_above = F.logsigmoid((mean - x + _HALF_BIN) * inverse)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(b - a)): no difference of two numbers near 1.
    inside = log_below + log_above + torch.log(-torch.expm1(-2 * _HALF_BIN * inverse))
    log_p = torch.where(x < _HALF_BIN, log_below, torch.where(x > 1 - _HALF_BIN, log_above, inside))
    return log_p + 0 * (mean + log_scale)  # an infinite parameter is an error to be seen, not a probability of 0
