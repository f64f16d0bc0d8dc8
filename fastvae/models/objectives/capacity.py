"""Objective that holds the KL to a capacity."""

import math

from torch import Tensor

from fastvae import ops
from fastvae.models.vae import VAE
from fastvae.ops import Backend, Noise, Reduction

from .objective import Objective, check_reduction, check_scalar, encode, penalised, sum_groups


def capacity(
    vae: VAE,
    x: Tensor,
    noise: Noise | Tensor | None = None,
    *,
    capacity: float | Tensor,
    beta: float | Tensor,
    reduction: Reduction = "batchmean",
    batch_kl: Tensor | None = None,
    weight: float | Tensor = 1.0,
    backend: Backend = "auto",
) -> Objective:
    r"""Compute ``nll + beta * |KL - C|``: the KL is held to a capacity C, which a schedule may raise.

    (Burgess et al. 2018, "Understanding disentangling in beta-VAE", equation 8.) The KL is the mean over the batch. The
    distance is that of :func:`fastvae.ops.capacity_kl`, computed from the KL that the sampling pass returns anyway. It
    adds up over the parts of a batch only if their KLs are all above C or all below it, or if each part is told the
    whole batch's KL.

    Args:
        capacity: C, in nats.
        beta: the factor of the distance, gamma in the paper, where it is 1000.
        batch_kl: where x is a part of a batch: the mean KL of the whole batch, () in nats. The distance and the sign of
            its gradient are then those of the whole batch. None: x is the whole batch.

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
    distance = (kl - capacity * rows).abs()
    if batch_kl is not None:
        excess = batch_kl - capacity
        distance = excess.abs() * rows + excess.sign() * (kl - kl.detach())
    return penalised(vae, x, z, kl, beta * distance, reduction, weight, backend)


def sum_kl(vae: VAE, x: Tensor, **_options: object) -> Tensor:
    """Return the KL of pixels (B, ...) summed over the rows, () fp64: B times the ``batch_kl`` of :func:`capacity`."""
    return sum_groups(*encode(vae, x), 1).squeeze(0)
