"""Cross-entropy of class logits: minus the log-likelihood of a pixel's class under a categorical decoder."""

import torch
from torch import Tensor

from ._reduce import accumulation_dtype, reduce


def categorical_nll(
    logits: Tensor, target: Tensor, *, reduction: str = "batchmean", weight: float | Tensor = 1.0
) -> Tensor:
    """``sum(logsumexp(l) - l[target])`` in nats, with the classes of ``logits`` (B, K, ...) in dimension 1.

    A class that does not exist gives NaN.
    """
    index = target.long()
    exists = (index >= 0) & (index < logits.shape[1])
    log_p = torch.log_softmax(logits.to(accumulation_dtype(logits.dtype)), 1)
    chosen = log_p.gather(1, torch.where(exists, index, 0).unsqueeze(1)).squeeze(1)
    return reduce(-chosen * torch.where(exists, 1.0, torch.nan).to(chosen.dtype), reduction, weight)
