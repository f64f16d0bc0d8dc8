"""Result of an objective, and steps that several objectives share."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastvae import ops
from fastvae.models.vae import VAE
from fastvae.ops import Backend, Reduction
from fastvae.ops._check import split_weight
from fastvae.utils.errors import InputError


class Objective(NamedTuple):
    """An objective's value in nats: fp32 (fp64 for a model in fp64), () or, for ``reduction="none"``, (B,).

    loss: the reduced objective times ``weight``, with gradients: the value to minimise.
    nll, kl: the two terms of the negative ELBO, reduced, without the weight, detached.
    bound: the objective's own value, reduced, without the weight, detached.
    """

    loss: Tensor
    nll: Tensor
    kl: Tensor
    bound: Tensor


def encode(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(mu, logvar)`` of pixels (B, ...). Raises InputError for a VAE with several levels of latents."""
    if vae.levels > 1:
        raise InputError(
            f"{type(vae).__name__} has {vae.levels} levels of latents, but this objective knows 1: use elbo"
        )
    return vae.encode(x)


def objective(loss: Tensor, nll: Tensor, kl: Tensor, bound: Tensor) -> Objective:
    """Return the four values in the dtype of the KL, detached but for the loss.

    The KL has not been multiplied by a scalar of the caller: a 0-d tensor in fp64 turns an fp32 scalar into fp64.
    """
    loss, nll, bound = (value.to(kl.dtype) for value in (loss, nll, bound))
    return Objective(loss, nll.detach(), kl.detach(), bound.detach())


def penalised(
    vae: VAE,
    x: Tensor,
    z: Tensor,
    kl: Tensor,
    penalty: Tensor,
    reduction: Reduction,
    weight: float | Tensor,
    backend: Backend,
) -> Objective:
    """Return the objective ``nll + penalty`` of latents z (B, ...).

    The weight goes into the kernel of the nll; the penalty, a scalar, is multiplied by it.
    """
    nll = vae.likelihood.nll(vae.decoder(z), x, reduction=reduction, weight=weight, backend=backend)
    plain = nll.detach() / weight
    return objective(nll + weight * penalty, plain, kl, plain + penalty)


def check_scalar(name: str, value: float | Tensor, x: Tensor) -> None:
    """Raise ValueError for a beta or capacity that is NaN, not a scalar, learned, or on another device than x.

    A CUDA graph would keep the value of a tensor on another device.
    """
    split_weight(value, x, name)


def sum_groups(mu: Tensor, logvar: Tensor, groups: int, *, wide: bool = True) -> Tensor:
    """Return the KL to N(0, I) of each of ``groups`` equal runs of the flattened latents, summed over the rows.

    Returns (groups,) in nats; ``wide`` sums in fp64.
    """
    each = ops.gaussian_kl(mu.flatten(), logvar.flatten(), reduction="none")  # one number for each element
    size = math.prod(mu.shape[1:]) // groups
    return each.view(len(mu), groups, size).sum((0, 2), dtype=torch.float64 if wide else None)


def check_reduction(reduction: Reduction) -> None:
    """Raise ValueError for ``reduction="none"``, which a statistic of the whole batch does not have."""
    if reduction not in ("batchmean", "sum"):
        raise ValueError(
            f"reduction must be 'batchmean' or 'sum' for a statistic of the whole batch, not {reduction!r}"
        )
