"""Objective of the beta-TCVAE, and the total correlation of the aggregate posterior, estimated from one batch."""

import math

import torch
from torch import Tensor

from fastvae import ops
from fastvae.models.vae import VAE
from fastvae.ops import Backend, Noise, Reduction

from .objective import Objective, check_reduction, check_scalar, encode, penalised


def total_correlation(
    vae: VAE,
    x: Tensor,
    noise: Noise | Tensor | None = None,
    *,
    beta: float | Tensor,
    dataset_size: int,
    reduction: Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: Backend = "auto",
) -> Objective:
    """Compute ``nll + kl + (beta - 1) * TC``: the beta-TCVAE (Chen et al. 2018, equation 4 with alpha = gamma = 1).

    The total correlation TC is estimated from the batch at hand by :func:`stratified_total_correlation`, in O(B**2 D)
    time. Each process, and each part of ``--accumulate``, estimates it from its own rows. One row says nothing about
    it: its TC counts as 0, which is that of a single posterior. Latents of 16 bits are sampled in fp32 here, because a
    rounded z is not a sample of a narrow posterior.

    Args:
        beta: the factor of the total correlation within the KL; 1 is the ELBO.
        dataset_size: the number of training images, at least B.

    Raises:
        ValueError: fewer images than rows, a beta that is not a scalar, or ``reduction="none"``.

    >>> from torch import nn
    >>> vae = VAE(nn.Linear(6, 4), nn.Linear(2, 6))
    >>> total_correlation(vae, torch.rand(5, 6), beta=6.0, dataset_size=60_000).loss.backward()
    """
    check_reduction(reduction)
    check_scalar("beta", beta, x)
    mu, logvar = encode(vae, x)
    encoded = mu.dtype
    if encoded != torch.float64:
        mu = mu.float()
        logvar = logvar.float()
    z, kl = ops.reparameterize_kl(mu, logvar, noise, reduction=reduction, backend=backend)
    penalty = kl
    if len(mu) > 1:
        rows = stratified_total_correlation(z, mu, logvar, dataset_size)
        penalty = kl + (beta - 1) * (rows.sum() if reduction == "sum" else rows.mean())
    return penalised(vae, x, z.to(encoded), kl, penalty, reduction, weight, backend)


def stratified_total_correlation(z: Tensor, mu: Tensor, logvar: Tensor, dataset_size: int) -> Tensor:
    r"""Estimate the total correlation of the latents, ``KL(q(z) || prod_d q(z_d))`` in nats, row by row.

    .. math:: \log \hat q(z_i) - \sum_d \log \hat q(z_{id}), \qquad
        \hat q(z_i) = \sum_j w_{ij} \, q(z_i \mid x_j)

    The estimate is minibatch-stratified sampling (Chen et al. 2018, "Isolating sources of disentanglement in VAEs",
    appendix C.2). In a batch of M + 1 out of N images, a row's own posterior has the weight ``1 / N``, the posterior of
    the next row (for the last row, of the first) ``(N - M) / (N M)``, and each other one ``1 / M``. The weights of a
    row add up to 1, and :math:`\hat q` is an unbiased estimate of q(z), the mean of the posteriors of all N images; its
    logarithm is too small in expectation. Unlike the minibatch-weighted estimate, it has no offset of
    ``(D - 1) log N``.

    It is plain torch and takes O(B**2 D) time and memory.

    Args:
        z: (B, ...) fp32 or fp64: a sample of each row's posterior.
        mu: same shape and type: the means of the posteriors.
        logvar: same shape and type: their log-variances.
        dataset_size: N, at least B.

    Returns:
        (B,) in the type of ``z``. Their mean is the estimate for the batch.

    Raises:
        ValueError: the batch has one row or none, or the data set is smaller than the batch.

    >>> same = torch.zeros(4, 3)  # one posterior for all rows, which is a product
    >>> stratified_total_correlation(torch.randn(4, 3), same, same, dataset_size=100).abs().max() < 1e-5
    tensor(True)
    """
    batch = z.shape[0]
    if batch < 2:
        raise ValueError(f"the total correlation needs a batch of 2 rows or more, not {batch}: drop the last batch")
    if dataset_size < batch:
        raise ValueError(f"dataset_size is {dataset_size}, but the batch has {batch} rows: give the size of all data")
    z, mu, logvar = (tensor.flatten(1) for tensor in (z, mu, logvar))
    # (B, B, D): row i's sample under row j's posterior. The constants of the two logarithms cancel: they are left out.
    standardised = (z.unsqueeze(1) - mu) * torch.exp(-0.5 * logvar)
    log_density = -0.5 * (standardised * standardised + logvar)
    log_weights = stratified_log_weights(batch, dataset_size, like=z)
    joint = torch.logsumexp(log_density.sum(2) + log_weights, 1)
    marginals = torch.logsumexp(log_density + log_weights.unsqueeze(2), 1)
    return joint - marginals.sum(1)


def stratified_log_weights(batch: int, dataset_size: int, like: Tensor) -> Tensor:
    """Return ``log w`` (B, B) of :func:`stratified_total_correlation`, in the dtype and on the device of ``like``.

    The authors' own program sets a column instead of the diagonal (github.com/rtqichen/beta-tcvae/pull/1).

    >>> stratified_log_weights(3, 10, torch.zeros(())).exp()
    tensor([[0.1000, 0.4000, 0.5000],
            [0.5000, 0.1000, 0.4000],
            [0.4000, 0.5000, 0.1000]])
    """
    others = batch - 1
    row = torch.arange(batch, device=like.device)
    after = torch.remainder(row - row.unsqueeze(1), batch)  # how many rows j comes after i, around the end
    rest = torch.full_like(after, -math.log(others), dtype=like.dtype)
    log_next = math.log((dataset_size - others) / (dataset_size * others))
    return rest.masked_fill(after == 1, log_next).masked_fill(after == 0, -math.log(dataset_size))
