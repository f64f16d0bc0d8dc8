"""Objective with free bits."""

from typing import Literal

from torch import Tensor

from fastvae import ops
from fastvae.models.vae import VAE
from fastvae.ops import Backend, Noise, Reduction

from .objective import Objective, check_reduction, encode, penalised, sum_groups


def free_bits(
    vae: VAE,
    x: Tensor,
    noise: Noise | Tensor | None = None,
    *,
    free_bits: float,
    groups: int | None = None,
    batch_kl: Tensor | None = None,
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
        batch_kl: where x is a part of a batch: the mean KL of each group over the whole batch, (groups,) in nats. It
            decides which groups are held, and what they cost. None: x is the whole batch.

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
    if batch_kl is None:
        held = ops.free_bits_kl(mu, logvar, free_bits, groups=groups, reduction=reduction, backend=backend)
    else:
        held = _held(mu, logvar, free_bits, batch_kl, reduction)
    # The plain KL is only reported. It costs nothing beside z: it has no gradient, so backward leaves it out.
    z, kl = ops.reparameterize_kl(mu, logvar, noise, reduction=reduction, backend=backend)
    return penalised(vae, x, z, kl, held, reduction, weight, backend)


def sum_group_kl(vae: VAE, x: Tensor, *, groups: int | None = None, **_options: object) -> Tensor:
    """Return the KL of each group summed over the B rows, (groups,) fp64: B times :func:`free_bits`'s ``batch_kl``."""
    mu, logvar = encode(vae, x)
    return sum_groups(mu, logvar, mu.shape[1] if groups is None else groups)


def _held(mu: Tensor, logvar: Tensor, free_bits: float, batch_kl: Tensor, reduction: Reduction) -> Tensor:
    """Return this part's share of ``sum_g max(free_bits, KL_g)``, with the gradients of the groups above it."""
    check_reduction(reduction)
    rows = len(mu) if reduction == "sum" else 1
    is_held = batch_kl <= free_bits  # a NaN is not <=, and keeps its gradient
    value = batch_kl.masked_fill(is_held, free_bits).sum() * rows
    own = sum_groups(mu, logvar, len(batch_kl), wide=False).masked_fill(is_held, 0).sum()
    if reduction == "batchmean":
        own = own / len(mu)
    return value + (own - own.detach())
