"""The latent term: the sample and its KL, together."""

from torch import Tensor

from .gaussian_kl import gaussian_kl
from .reparameterize import reparameterize


def reparameterize_kl(
    mu: Tensor, logvar: Tensor, eps: Tensor, *, reduction: str = "batchmean", weight: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """``z`` as :func:`reparameterize` draws it, and the KL as :func:`gaussian_kl` counts it."""
    return reparameterize(mu, logvar, eps), gaussian_kl(mu, logvar, reduction=reduction, weight=weight)
