"""The last layer of a Bernoulli decoder and its binary cross-entropy: the two steps, one after the other."""

import torch.nn.functional as F
from torch import Tensor

from .bernoulli_nll import bernoulli_nll


def linear_bernoulli_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    reduction: str = "batchmean",
    loss_weight: float | Tensor = 1.0,
) -> Tensor:
    """``bernoulli_nll(hidden @ weight.T + bias, target)``, the event dimensions of the target in one."""
    logits = F.linear(hidden, weight, bias)
    return bernoulli_nll(logits, target.reshape(logits.shape), reduction=reduction, weight=loss_weight)
