"""KL between two diagonal Gaussians: a posterior and a learned prior (Sonderby et al. 2016, ladder VAEs)."""

import torch
from torch import Tensor

from ._reduce import accumulation_dtype, reduce


def gaussian_prior_kl(
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor,
    prior_logvar: Tensor,
    *,
    reduction: str = "batchmean",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """``0.5 * sum(expm1(d) - d + (mu - prior_mu)**2 * exp(-prior_logvar))``, ``d = logvar - prior_logvar``, in nats.

    The error is scaled before it is squared: ``exp(-prior_logvar)`` overflows where the product need not.
    """
    dtype = accumulation_dtype(mu.dtype)
    mu, logvar, prior_mu, prior_logvar = (x.to(dtype) for x in (mu, logvar, prior_mu, prior_logvar))
    error = (mu - prior_mu) * torch.exp(-0.5 * prior_logvar)
    difference = logvar - prior_logvar
    return reduce(0.5 * (error * error + (torch.expm1(difference) - difference)), reduction, weight)
