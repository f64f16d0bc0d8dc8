"""KL divergence of a diagonal Gaussian posterior from a diagonal Gaussian prior that is learned."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss

define_loss("gaussian_prior_kl", "mu logvar prior_mu prior_logvar")


def gaussian_prior_kl(
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor,
    prior_logvar: Tensor,
    *,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""KL(N(mu, exp(logvar)) || N(prior_mu, exp(prior_logvar))) in nats, with gradients for all four.

    .. math:: \mathrm{KL} = \tfrac12 \sum_j \mathrm{expm1}(d_j) - d_j
        + (\mu_j - \mu'_j)^2 e^{-\log\sigma'^2_j}, \qquad d = \log\sigma^2 - \log\sigma'^2

    (The prior of a level of a ladder VAE, Sonderby et al. 2016, section 2, or any other that is learned; with
    ``expm1``, which keeps the digits where the two nearly agree.) One pass reads four tensors and writes four
    gradients: 32 bytes an element in fp32.

    Args:
        mu: (B, ...) fp32, bf16, fp16 or fp64; any strides, so the halves of one packed head are taken as they are.
        logvar: same shape and type.
        prior_mu: same shape and type. One learned vector for the whole batch comes as ``vector.expand(B, ...)``: its
            rows are read where they lie, with no copy.
        prior_logvar: same shape and type.
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradients; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, or an option is unknown.
        TypeError: an unsupported dtype.

    Computed in fp32 or better: an infinite KL where logvar is 88.7 above prior_logvar, NaN for NaN, and NaN where
    prior_logvar is under -177.4 (or infinite) and the means agree: 0 times infinity. Differentiating twice raises a
    RuntimeError; the "reference" backend can.

    >>> import torch
    >>> mu, logvar = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)
    >>> gaussian_prior_kl(mu, logvar, torch.zeros(2).expand(1, 2), logvar)
    tensor(2.5000)
    """
    posterior = _check.latents(mu, logvar)
    _check.pair("mu", mu, "prior_mu", prior_mu)
    if mu.dtype != prior_mu.dtype:
        raise TypeError(f"mu is {mu.dtype}, but prior_mu is {prior_mu.dtype}: both need the same type")
    prior = _check.latents(prior_mu, prior_logvar, "prior_")
    reduce = Reduce.of(reduction, weight, mu)
    operators = _library.resolve(backend, mu)
    if operators is None:
        return reference.gaussian_prior_kl(*posterior, *prior, reduction=reduction, weight=weight)
    return fused_loss(operators, "gaussian_prior_kl", (*posterior, *prior), (), reduce)
