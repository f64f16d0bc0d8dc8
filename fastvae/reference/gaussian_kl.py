"""KL(N(mu, exp(logvar)) || N(0, I)) in closed form (Kingma & Welling 2013, appendix B)."""

import torch
from torch import Tensor

from ._reduce import accumulation_dtype, clamped, reduce


def gaussian_kl(
    mu: Tensor,
    logvar: Tensor,
    *,
    clamp: tuple[float, float] | None = None,
    reduction: str = "batchmean",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """``0.5 * sum(mu**2 + expm1(logvar) - logvar)`` in nats.

    The usual ``exp(logvar) - 1 - logvar`` loses its digits where logvar is near 0; ``expm1`` keeps them.
    """
    dtype = accumulation_dtype(mu.dtype)
    mu = mu.to(dtype)
    logvar = clamped(logvar.to(dtype), clamp)
    return reduce(0.5 * (mu * mu + (torch.expm1(logvar) - logvar)), reduction, weight)
