"""Binary cross-entropy on logits: minus the log-likelihood of pixels in [0, 1] under a Bernoulli decoder."""

import torch
from torch import Tensor

from ._reduce import accumulation_dtype, reduce, unit_interval


def bernoulli_nll(
    logits: Tensor, target: Tensor, *, reduction: str = "batchmean", weight: float | Tensor = 1.0
) -> Tensor:
    """``sum(max(l, 0) - l*x + log1p(exp(-|l|)))`` in nats; exact where sigmoid followed by BCE is not."""
    dtype = accumulation_dtype(logits.dtype)
    logit = logits.to(dtype)
    x = unit_interval(target, dtype)
    # Not clamp() and abs(): autograd takes both slopes at 0 to be 0, and the gradient there would not be 1/2 - x.
    positive = torch.where(logit >= 0, logit, 0.0)
    magnitude = torch.where(logit >= 0, logit, -logit)
    return reduce(positive - logit * x + torch.log1p(torch.exp(-magnitude)), reduction, weight)
