"""KL divergence of a diagonal Gaussian posterior from the standard normal prior."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss

define_loss("gaussian_kl", "mu logvar", "float low, float high")


def gaussian_kl(
    mu: Tensor,
    logvar: Tensor,
    *,
    clamp: tuple[float, float] | None = None,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""KL(N(mu, exp(logvar)) || N(0, I)) in nats.

    .. math:: \mathrm{KL} = \tfrac12 \sum_j \mu_j^2 + \mathrm{expm1}(\log\sigma_j^2) - \log\sigma_j^2

    (Kingma & Welling 2013, appendix B; with ``expm1``, which keeps the digits where logvar is near 0.)

    Args:
        mu: (B, ...) fp32, bf16, fp16 or fp64; any strides, so the halves of one packed head are taken as they are.
        logvar: same shape and type.
        clamp: (low, high), to which the kernel first clamps logvar. logvar has a gradient on the bounds and none
            outside; NaN stays NaN. Latent diffusion's autoencoders use (-30.0, 20.0) (Rombach et al. 2022).
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradients; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, the clamp is not an interval, or an option is unknown.
        TypeError: an unsupported dtype.

    Computed in fp32: a logvar over 88.7 gives an infinite KL, a NaN gives NaN. Differentiating twice raises a
    RuntimeError; the "reference" backend can.

    >>> import torch
    >>> gaussian_kl(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2))
    tensor(2.5000)
    """
    mu, logvar = _check.latents(mu, logvar)
    interval = _check.bounds(clamp)
    reduce = Reduce.of(reduction, weight, mu)
    operators = _library.resolve(backend, mu)
    if operators is None:
        return reference.gaussian_kl(mu, logvar, clamp=clamp, reduction=reduction, weight=weight)
    return fused_loss(operators, "gaussian_kl", (mu, logvar), interval, reduce)
