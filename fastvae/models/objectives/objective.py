"""What an objective returns, and what the objectives share."""

from typing import NamedTuple

from torch import Tensor

from fastvae.models.vae import VAE
from fastvae.ops import Backend, Reduction
from fastvae.ops._check import split_weight
from fastvae.utils.errors import InputError


class Objective(NamedTuple):
    """An objective's value, in nats, in fp32 (fp64 for fp64); () or, for ``reduction="none"``, (B,).

    ``loss`` is what is minimised: reduced, times ``weight``, with gradients. The rest is detached, reduced and without
    the weight: ``nll`` and ``kl``, the two terms of the negative ELBO, and ``bound``, the objective's own value.
    """

    loss: Tensor
    nll: Tensor
    kl: Tensor
    bound: Tensor


def encode(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """``(mu, logvar)`` of all that the decoder needs. Raises InputError for a VAE with more levels of latents."""
    if vae.levels > 1:
        raise InputError(
            f"{type(vae).__name__} has {vae.levels} levels of latents, but this objective knows 1: use elbo"
        )
    return vae.encode(x)


def objective(loss: Tensor, nll: Tensor, kl: Tensor, bound: Tensor) -> Objective:
    """All in the type of the KL, which has met no dial: a 0-d tensor in fp64 turns a scalar in fp32 into fp64."""
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
    """``nll + penalty``. The weight goes into the kernel of the nll; the penalty, a scalar, takes it as a factor."""
    nll = vae.likelihood.nll(vae.decoder(z), x, reduction=reduction, weight=weight, backend=backend)
    plain = nll.detach() / weight
    return objective(nll + weight * penalty, plain, kl, plain + penalty)


def check_dial(name: str, dial: float | Tensor, x: Tensor) -> None:
    """Refuse a dial that is NaN, no scalar, learned, or (a CUDA graph would keep its value) on another device."""
    split_weight(dial, x, name)


def check_of_the_batch(reduction: Reduction) -> None:
    if reduction not in ("batchmean", "sum"):
        raise ValueError(
            f"reduction must be 'batchmean' or 'sum' for a statistic of the whole batch, not {reduction!r}"
        )
