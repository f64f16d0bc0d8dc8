"""Objective with free bits."""

from typing import Literal

from torch import Tensor

from fastvae import ops
from fastvae.models.vae import VAE
from fastvae.ops import Backend, Noise

from .objective import Objective, encode, penalised


def free_bits(
    vae: VAE,
    x: Tensor,
    noise: Noise | Tensor | None = None,
    *,
    free_bits: float,
    groups: int | None = None,
    reduction: Literal["batchmean", "sum"] = "batchmean",
    weight: float | Tensor = 1.0,
    backend: Backend = "auto",
) -> Objective:
    """Compute ``nll + sum_g max(free_bits, KL_g)``, where KL_g, of a group of latents, is a mean over the batch.

    (Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", equation 15.)

    Args:
        free_bits: the threshold of a group, at least 0, in nats.
        groups: the number of equal runs that the flattened latents are divided into; None makes each dimension of a
            vector a group, and each channel of a grid with all of its places, as in
            :func:`fastvae.ops.free_bits_kl`.

    Raises:
        ValueError: a negative threshold, groups that do not divide the latents, or ``reduction="none"``.

    >>> import torch
    >>> from torch import nn
    >>> vae = VAE(nn.Linear(6, 4), nn.Linear(2, 6))
    >>> value = free_bits(vae, torch.rand(5, 6), free_bits=8.0)  # more than either latent carries
    >>> torch.allclose(value.bound, value.nll + 2 * 8)
    True
    """
    mu, logvar = encode(vae, x)
    held = ops.free_bits_kl(mu, logvar, free_bits, groups=groups, reduction=reduction, backend=backend)
    # The plain KL is only reported. It costs nothing beside z: it has no gradient, so backward leaves it out.
    z, kl = ops.reparameterize_kl(mu, logvar, noise, reduction=reduction, backend=backend)
    return penalised(vae, x, z, kl, held, reduction, weight, backend)
