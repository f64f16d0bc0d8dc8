"""The latent term: the sample and its KL, together."""

from torch import Tensor

from .gaussian_kl import gaussian_kl
from .reparameterize import reparameterize


def reparameterize_kl(
    mu: Tensor,
    logvar: Tensor,
    eps: Tensor,
    *,
    clamp: tuple[float, float] | None = None,
    reduction: str = "batchmean",
    weight: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    """``z`` as :func:`reparameterize` draws it, and the KL as :func:`gaussian_kl` counts it."""
    kl = gaussian_kl(mu, logvar, clamp=clamp, reduction=reduction, weight=weight)
    return reparameterize(mu, logvar, eps, clamp=clamp), kl
