"""The reparameterisation step (Kingma & Welling 2013, "Auto-encoding variational Bayes", section 2.4)."""

import torch
from torch import Tensor

from ._reduce import accumulation_dtype, clamped


def reparameterize(mu: Tensor, logvar: Tensor, eps: Tensor, *, clamp: tuple[float, float] | None = None) -> Tensor:
    """``z = mu + exp(logvar / 2) * eps``, computed in fp32 or better, in the type of ``mu``."""
    dtype = accumulation_dtype(mu.dtype)
    z = mu.to(dtype) + torch.exp(0.5 * clamped(logvar.to(dtype), clamp)) * eps.to(dtype)
    return z.to(mu.dtype)
