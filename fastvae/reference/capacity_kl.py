"""The KL held to a capacity (Burgess et al. 2018, "Understanding disentangling in beta-VAE", equation 8)."""

from torch import Tensor

from .gaussian_kl import gaussian_kl


def capacity_kl(
    mu: Tensor,
    logvar: Tensor,
    capacity: float | Tensor,
    *,
    per_sample: bool = False,
    reduction: str = "batchmean",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """``weight * |KL - capacity|`` of the batch mean, or of each sample and then reduced."""
    if per_sample:
        distance = (gaussian_kl(mu, logvar, reduction="none") - capacity).abs()
        if reduction != "none":
            distance = distance.sum() / len(distance) if reduction == "batchmean" else distance.sum()
    else:
        samples = len(mu) if reduction == "sum" else 1
        distance = (gaussian_kl(mu, logvar, reduction=reduction) - capacity * samples).abs()
    return (distance * weight).to(distance.dtype)
