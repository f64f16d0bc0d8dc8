"""The KL with free bits: an allowance for each group of latent dimensions (Kingma et al. 2016, eq. 15)."""

import torch
from torch import Tensor

from ._reduce import accumulation_dtype


def free_bits_kl(
    mu: Tensor,
    logvar: Tensor,
    free_bits: float,
    *,
    groups: int | None = None,
    reduction: str = "batchmean",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """``sum_g max(free_bits, mean_b KL[b, g])`` in nats, over ``groups`` equal runs of the flattened event.

    By default a group is an index of dimension 1: an element of a vector, a channel of a grid.

    Not ``torch.maximum``: at the threshold its slope is 1/2, and ours is 0.
    """
    if reduction not in ("batchmean", "sum"):
        raise ValueError(f"reduction must be 'batchmean' or 'sum' for a mean over the whole batch, not {reduction!r}")
    dtype = accumulation_dtype(mu.dtype)
    batch = mu.shape[0]
    mu = mu.to(dtype)
    logvar = logvar.to(dtype)
    per_dimension = (0.5 * (mu * mu + (torch.expm1(logvar) - logvar))).sum(0).flatten()
    if groups is None:
        groups = mu.shape[1] if mu.ndim > 1 else 1
    sums = per_dimension.reshape(groups, per_dimension.numel() // max(groups, 1)).sum(1)
    allowance = torch.full_like(sums, free_bits * batch)
    loss = torch.where(sums <= allowance, allowance, sums).sum()  # a NaN is not <=, and stays
    if reduction == "batchmean":
        loss = loss / batch
    return (loss * weight).to(loss.dtype)  # a 0-d weight in fp64 would make the loss fp64
