"""The latent term of the ELBO: the reparameterisation step and its KL in one pass."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, loss_shape
from ._latent import CLAMP_SCHEMA, REDUCE_SCHEMA, define_latent, fused_latent
from .noise import Noise, explicit, noise_arguments

define_latent(
    "reparameterize_kl",
    "z kl",
    f"{CLAMP_SCHEMA}, {REDUCE_SCHEMA}",
    lambda mu, low, high, reduction, *_: (mu.new_empty(mu.shape), loss_shape(mu, reduction)),
)


def reparameterize_kl(
    mu: Tensor,
    logvar: Tensor,
    noise: Noise | Tensor | None = None,
    *,
    clamp: tuple[float, float] | None = None,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Draw ``z ~ N(mu, exp(logvar))`` and compute KL(N(mu, exp(logvar)) || N(0, I)), in one pass each way.

    The values are those of :func:`reparameterize` and :func:`gaussian_kl`, for the memory traffic of one of them:
    forward reads mu and logvar and writes z; backward reads them again with the gradient of z and writes both
    gradients. The noise is never stored: backward draws it again.

    Args:
        mu: (B, ...) fp32, bf16, fp16 or fp64; any strides, so the halves of one packed head are taken as they are.
        logvar: same shape and type.
        noise: a :class:`fastvae.Noise` key; a tensor ``eps`` of the same shape; or None for a fresh key from torch's
            default generator, which ``torch.manual_seed`` seeds.
        clamp: (low, high), to which the kernel first clamps logvar. logvar has a gradient on the bounds and none
            outside; NaN stays NaN. Latent diffusion's autoencoders use (-30.0, 20.0) (Rombach et al. 2022).
        reduction: of the KL: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into the KL and its gradients (beta); a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        z, dense, in the shape and type of ``mu``; and the KL in nats, in fp32 (fp64 for fp64), summed in a fixed
        order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, the clamp is not an interval, or an option is unknown.
        TypeError: an unsupported dtype.

    Computed in fp32 or better; a logvar over 88.7 gives an infinite KL. Differentiating twice raises a RuntimeError;
    the "reference" backend can.

    >>> import torch
    >>> z, kl = reparameterize_kl(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([[0.5, -1.0]]))
    >>> z, kl
    (tensor([[1.5000, 0.0000]]), tensor(1.))
    """
    mu, logvar = _check.latents(mu, logvar)
    interval = _check.bounds(clamp)
    arguments = noise_arguments(noise, mu)
    reduce = Reduce.of(reduction, weight, mu)
    operators = _library.resolve(backend, mu)
    if operators is None:
        eps = explicit(arguments, mu)
        return reference.reparameterize_kl(mu, logvar, eps, clamp=clamp, reduction=reduction, weight=weight)
    z, kl = fused_latent(operators, "reparameterize_kl", mu, logvar, arguments, interval, reduce=reduce)
    return z, kl
