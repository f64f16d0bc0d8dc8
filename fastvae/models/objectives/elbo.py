"""The negative ELBO."""

from torch import Tensor

from fastvae.models.vae import VAE
from fastvae.ops import Backend, Noise, Reduction

from .objective import Objective, check_scalar, objective


def elbo(
    vae: VAE,
    x: Tensor,
    noise: Noise | Tensor | None = None,
    *,
    beta: float | Tensor = 1.0,
    reduction: Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: Backend = "auto",
) -> Objective:
    """Compute the negative ELBO, ``nll + beta * kl``.

    (Kingma & Welling 2013, equation 10; Higgins et al. 2017, equation 4.)

    Raises:
        ValueError: beta is NaN, not a scalar, or on another device; or as :meth:`fastvae.VAE.loss`.

    >>> import torch
    >>> from torch import nn
    >>> vae = VAE(nn.Linear(6, 4), nn.Linear(2, 6))
    >>> value = elbo(vae, torch.rand(5, 6), beta=4.0)
    >>> value.loss.backward()
    >>> torch.equal(value.bound, value.nll + 4 * value.kl)
    True
    """
    check_scalar("beta", beta, x)
    terms = vae.loss(x, noise, beta=beta, reduction=reduction, weight=weight, backend=backend)
    return objective(terms.loss, terms.nll, terms.kl, terms.nll + beta * terms.kl)
