"""Importance-weighted bound."""

from torch import Tensor

from fastvae import ops
from fastvae.models.vae import VAE
from fastvae.ops import Backend, Noise, Reduction
from fastvae.ops.reparameterize_log_ratio import Estimator

from .objective import Objective, encode, objective


def importance_weighted(
    vae: VAE,
    x: Tensor,
    noise: Noise | Tensor | None = None,
    *,
    samples: int = 5,
    estimator: Estimator = "iwae",
    reduction: Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: Backend = "auto",
) -> Objective:
    r"""Compute the bound of K samples on ``-log p(x)`` (Burda et al. 2015, equation 8).

    .. math:: -\log \frac1K \sum_k \frac{p(x \mid z_k) \, p(z_k)}{q(z_k \mid x)}

    The decoder's input is (B * K, latent...), the samples of a row one after another. A tensor eps has the shape
    (B, K, latent...). ``nll`` and ``kl`` are the means over the K samples of ``-log p(x | z)`` and
    ``log q(z | x) - log p(z)``: unbiased estimates of the ELBO's terms, whose sum is never below ``bound``.

    Args:
        samples: K, at least 1; 1 is the ELBO with its KL sampled.
        estimator: the estimator of the encoder's gradient: "iwae", "stl" (Roeder et al. 2017) or "dreg" (Tucker et al.
            2018), defined in :func:`fastvae.ops.reparameterize_log_ratio`. Values and the decoder's gradient are the
            same for all.

    Raises:
        ValueError: no sample, an unknown estimator, or a likelihood that has no value per row.
        TypeError: samples is not a whole number.

    >>> import torch
    >>> from torch import nn
    >>> vae = VAE(nn.Linear(6, 4), nn.Linear(2, 6))
    >>> value = importance_weighted(vae, torch.rand(5, 6), samples=50, estimator="dreg")
    >>> value.loss.backward()
    >>> bool(value.bound <= value.nll + value.kl)
    True
    """
    mu, logvar = encode(vae, x)
    z, log_ratio = ops.reparameterize_log_ratio(
        mu, logvar, noise, samples=samples, estimator=estimator, backend=backend
    )
    # The targets are repeated in their own dtype: uint8 costs 1 byte per pixel, the decoder's output 4. For K = 1 this
    # is a view.
    targets = x.unsqueeze(1).expand(-1, samples, *x.shape[1:]).flatten(0, 1)
    nll = vae.likelihood.nll(vae.decoder(z.flatten(0, 1)), targets, reduction="none", backend=backend)
    nll = nll.view(log_ratio.shape)
    loss = ops.importance_weighted_nll(nll, log_ratio, reduction=reduction, weight=weight, backend=backend)
    return objective(loss, _mean_over_samples(nll, reduction), _mean_over_samples(log_ratio, reduction), loss / weight)


def _mean_over_samples(values: Tensor, reduction: Reduction) -> Tensor:
    """Return the mean of (B, K) over K, reduced over B."""
    rows = values.detach().mean(1)
    if reduction == "none":
        return rows
    return rows.sum() if reduction == "sum" else rows.mean()
