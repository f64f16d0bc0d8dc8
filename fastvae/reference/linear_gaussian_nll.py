"""The last layer of a Gaussian decoder and its squared error: the two steps, one after the other."""

import torch.nn.functional as F
from torch import Tensor

from .gaussian_nll import gaussian_nll


def linear_gaussian_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    variance: float = 1.0,
    *,
    full: bool = False,
    reduction: str = "batchmean",
    loss_weight: float | Tensor = 1.0,
) -> Tensor:
    """``gaussian_nll(hidden @ weight.T + bias, target, variance)``, the event dimensions of the target in one."""
    mean = F.linear(hidden, weight, bias)
    return gaussian_nll(mean, target.reshape(mean.shape), variance, full=full, reduction=reduction, weight=loss_weight)
