"""Several samples of the posterior for each input, and the log-density ratio that weighs each."""

from typing import Any

import torch
from torch import Tensor

from ._reduce import accumulation_dtype


def reparameterize_log_ratio(
    mu: Tensor, logvar: Tensor, eps: Tensor, *, estimator: str = "iwae"
) -> tuple[Tensor, Tensor]:
    """``z = mu + exp(logvar / 2) * eps`` and ``log q(z|x) - log p(z) = sum(z**2 - eps**2 - logvar) / 2`` for K samples.

    ``eps`` is (B, K, ...); q is N(mu, exp(logvar)), p is N(0, I). The estimators share these values and differ in
    what a gradient reaches: see :func:`fastvae.ops.reparameterize_log_ratio`.
    """
    dtype = accumulation_dtype(mu.dtype)
    mean = mu.to(dtype).unsqueeze(1)
    log = logvar.to(dtype).unsqueeze(1)
    eps = eps.to(dtype)
    z = mean + torch.exp(0.5 * log) * eps
    standardised = eps
    if estimator != "iwae":
        # The parameters of log q are constants: its slope in z is that of -((z - mu) / sigma)**2 / 2, its value stays.
        log = log.detach()
        standardised = eps + (z - z.detach()) * torch.exp(-0.5 * log)
    terms = 0.5 * (z * z - standardised * standardised - log)
    log_ratio = terms.flatten(2).sum(2) if terms.ndim > 2 else terms
    if estimator == "dreg":
        z, log_ratio = _WeighAgain.apply(z, log_ratio)
    return z.to(mu.dtype), log_ratio


class _WeighAgain(torch.autograd.Function):
    """Identity, whose backward multiplies both gradients of a sample by its share of its row's gradient."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return z.view_as(z), log_ratio.view_as(log_ratio)

    @staticmethod
    def backward(_ctx: Any, grad_z: Tensor | None, grad_ratio: Tensor | None) -> tuple[Tensor | None, Tensor]:
        if grad_ratio is None:
            raise RuntimeError(
                "estimator='dreg' takes its weights from the gradient of log_ratio, but log_ratio has none: "
                "use it in importance_weighted_nll, or take estimator='iwae'"
            )
        total = grad_ratio.sum(1, keepdim=True)
        weight = torch.where(total == 0, 0.0, grad_ratio / total)
        if grad_z is not None:
            grad_z = grad_z * weight.view(*weight.shape, *(1,) * (grad_z.ndim - 2))
        return grad_z, grad_ratio * weight
