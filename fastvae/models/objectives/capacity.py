"""The KL held to a capacity."""

import math

from torch import Tensor

from fastvae import ops
from fastvae.models.vae import VAE
from fastvae.ops import Backend, Noise, Reduction

from .objective import Objective, check_dial, check_of_the_batch, encode, penalised


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
    r"""``nll + beta * |KL - C|``, with the KL held to a capacity C that a schedule raises.

    (Burgess et al. 2018, "Understanding disentangling in beta-VAE", equation 8.) The KL is the mean over the batch,
    the distance that of :func:`fastvae.ops.capacity_kl`, from the KL that the sampling pass counts anyhow. Over parts
    of a batch it adds up only while all their KLs are on one side of C.

    Args:
        capacity: C, in nats.
        beta: gamma in the paper, which has 1000.

    Raises:
        ValueError: capacity is not finite, a dial is no scalar or on another device, or ``reduction="none"``.

    >>> import torch
    >>> from torch import nn
    >>> vae = VAE(nn.Linear(6, 4), nn.Linear(2, 6))
    >>> value = capacity(vae, torch.rand(5, 6), capacity=25.0, beta=10.0)
    >>> torch.allclose(value.bound, value.nll + 10 * (value.kl - 25).abs())
    True
    """
    check_of_the_batch(reduction)
    check_dial("beta", beta, x)
    check_dial("capacity", capacity, x)
    if not isinstance(capacity, Tensor) and not -math.inf < capacity < math.inf:
        raise ValueError(f"capacity must be a finite number of nats, not {capacity}")
    z, kl = ops.reparameterize_kl(*encode(vae, x), noise, reduction=reduction, backend=backend)
    rows = len(x) if reduction == "sum" else 1
    return penalised(vae, x, z, kl, beta * (kl - capacity * rows).abs(), reduction, weight, backend)
