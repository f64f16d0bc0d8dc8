"""KL(N(mu, exp(logvar)) || N(0, I)): one pass reads mu and logvar and writes both gradients."""

from torch import Tensor

from ._latent import Clamp, Reduce, backward, forward
from ._launch import empty_gradient


def gaussian_kl(
    mu: Tensor,
    logvar: Tensor,
    low: float,
    high: float,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
    with_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_mu, grad_logvar = (empty_gradient(mu, reduction, with_grad) for _ in range(2))
    gradients = (grad_mu, grad_logvar) if grad_mu.numel() else (None, None)
    reduce = Reduce(reduction, weight, weight_tensor)
    kl = forward(mu, logvar, clamp=Clamp(low, high), reduce=reduce, gradients=gradients)
    return kl, grad_mu, grad_logvar


def gaussian_kl_backward(
    grad_output: Tensor,
    mu: Tensor,
    logvar: Tensor,
    low: float,
    high: float,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> tuple[Tensor, Tensor]:
    reduce = Reduce(reduction, weight, weight_tensor)
    return backward(None, grad_output, mu, logvar, clamp=Clamp(low, high), reduce=reduce)
