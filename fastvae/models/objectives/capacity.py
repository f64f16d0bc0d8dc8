"""Objective that holds the KL to a capacity."""

import math

from torch import Tensor

from fastvae import ops
from fastvae.models.vae import VAE
from fastvae.ops import Backend, Noise, Reduction

from .objective import Objective, check_reduction, check_scalar, encode, penalised


def capacity(
    vae: VAE,
    x: Tensor,
    noise: Noise | Tensor | None = None,
    *,
    capacity: float | Tensor,
    beta: float | Tensor,
    reduction: Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: Backend = "auto",
) -> Objective:
    r"""Compute ``nll + beta * |KL - C|``: the KL is held to a capacity C, which a schedule may raise.

    (Burgess et al. 2018, "Understanding disentangling in beta-VAE", equation 8.) The KL is the mean over the batch. The
    distance is that of :func:`fastvae.ops.capacity_kl`, computed from the KL that the sampling pass returns anyway. It
    adds up over the parts of a batch only if their KLs are all above C or all below it.

    Args:
        capacity: C, in nats.
        beta: the factor of the distance, gamma in the paper, where it is 1000.

    Raises:
        ValueError: capacity is not finite, beta or capacity is not a scalar or is on another device, or
            ``reduction="none"``.

    >>> import torch
    >>> from torch import nn
    >>> vae = VAE(nn.Linear(6, 4), nn.Linear(2, 6))
    >>> value = capacity(vae, torch.rand(5, 6), capacity=25.0, beta=10.0)
    >>> torch.allclose(value.bound, value.nll + 10 * (value.kl - 25).abs())
    True
    """
    check_reduction(reduction)
    check_scalar("beta", beta, x)
    check_scalar("capacity", capacity, x)
    if not isinstance(capacity, Tensor) and not -math.inf < capacity < math.inf:
        raise ValueError(f"capacity must be a finite number of nats, not {capacity}")
    z, kl = ops.reparameterize_kl(*encode(vae, x), noise, reduction=reduction, backend=backend)
    rows = len(x) if reduction == "sum" else 1
    return penalised(vae, x, z, kl, beta * (kl - capacity * rows).abs(), reduction, weight, backend)
