"""The ELBO over a data set: the one evaluation of training and of ``fastvae evaluate``."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fastvae.data import Batch
from fastvae.ops import Noise

from .loss import EVAL_STREAM, StepLoss, StepScalars


@torch.no_grad()
def evaluate(
    loss: StepLoss,
    batches: Iterable[Batch],
    noise: Noise,
    *,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    visit: Callable[[Batch], None] | None = None,
    all_reduce: Callable[[Tensor], None] | None = None,
) -> tuple[Tensor, int]:
    """Sum the negative ELBO and its terms over all images, with one sample of z for each.

    The noise of an image depends on its place in the data set, not on the batch size or the number of ranks. A
    likelihood that is a statistic of its batch (``couples_rows``) is that of all images together.

    Args:
        loss: the negative ELBO of the model to evaluate, in eval mode.
        batches: of images, in the order of the data set.
        noise: a key on the images' device.
        autocast: a context for the forward passes.
        visit: called with each batch, for whatever else is computed from it.
        all_reduce: sums a tensor over the ranks, in place; None for one rank.

    Returns:
        The sums ``[loss, nll, kl]`` (3,) in nats, fp64, on the device, and the number of images of all ranks.
    """
    parameter = next(loss.parameters())
    wide = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    one = torch.ones((), dtype=wide, device=noise.state.device)
    sums = torch.zeros(3, dtype=torch.float64, device=noise.state.device)
    likelihood = loss.model.likelihood
    images = 0
    values = 0  # of an image's pixels
    for batch in batches:
        with autocast():
            _, terms = loss(
                batch.images, noise.state, images + batch.row_offset, EVAL_STREAM, StepScalars(one, one, one)
            )
        terms = terms.double()
        terms[1] = likelihood.to_sum(terms[1], batch.images.numel())
        sums += terms
        images += batch.rows
        values = math.prod(batch.images.shape[1:])
        if visit is not None:
            visit(batch)
    if all_reduce is not None:
        all_reduce(sums)
    if likelihood.couples_rows:
        sums[1] = likelihood.from_sum(sums[1], images * values)
        sums[0] = sums[1] + sums[2]
    return sums, images
