"""Free bits."""

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
    """``nll + sum_g max(free_bits, KL_g)``, the KL of each group of latents being a mean over the batch.

    (Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", equation 15.)

    Args:
        free_bits: the threshold of a group, at least 0, in nats.
        groups: how many equal runs the flattened latents are cut into; None: each is its own.
            :func:`fastvae.ops.free_bits_kl` has both.

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
    # The plain KL, which is only reported, costs nothing beside z: without a gradient, backward leaves it out.
    z, kl = ops.reparameterize_kl(mu, logvar, noise, reduction=reduction, backend=backend)
    return penalised(vae, x, z, kl, held, reduction, weight, backend)
