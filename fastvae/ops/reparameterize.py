"""The reparameterisation step."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._latent import CLAMP_SCHEMA, define_latent, fused_latent
from .noise import Noise, explicit, noise_arguments

define_latent("reparameterize", "z", CLAMP_SCHEMA, lambda mu, *_: mu.new_empty(mu.shape))


def reparameterize(
    mu: Tensor,
    logvar: Tensor,
    noise: Noise | Tensor | None = None,
    *,
    clamp: tuple[float, float] | None = None,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""Draw ``z ~ N(mu, exp(logvar))``, differentiably.

    .. math:: z = \mu + e^{\log\sigma^2 / 2} \, \epsilon, \qquad \epsilon \sim N(0, I)

    (Kingma & Welling 2013, section 2.4.) The noise is never stored: backward draws it again.

    Args:
        mu: (B, ...) fp32, bf16, fp16 or fp64; any strides, so the halves of one packed head are taken as they are.
        logvar: same shape and type.
        noise: a :class:`fastvae.Noise` key; a tensor ``eps`` of the same shape; or None for a fresh key from torch's
            default generator, which ``torch.manual_seed`` seeds.
        clamp: (low, high), to which the kernel first clamps logvar. logvar has a gradient on the bounds and none
            outside; NaN stays NaN. Latent diffusion's autoencoders use (-30.0, 20.0) (Rombach et al. 2022).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        z, dense, in the shape and type of ``mu``.

    Raises:
        ValueError: shapes or devices differ, the clamp is not an interval, or an option is unknown.
        TypeError: an unsupported dtype.

    Computed in fp32 or better: a logvar over 177.4 overflows to an infinite z. Differentiating twice raises a
    RuntimeError; the "reference" backend can.

    >>> import torch
    >>> reparameterize(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([[0.5, -1.0]]))
    tensor([[1.5000, 0.0000]])
    """
    mu, logvar = _check.latents(mu, logvar)
    interval = _check.bounds(clamp)
    arguments = noise_arguments(noise, mu)
    operators = _library.resolve(backend, mu)
    if operators is None:
        return reference.reparameterize(mu, logvar, explicit(arguments, mu), clamp=clamp)
    z: Tensor = fused_latent(operators, "reparameterize", mu, logvar, arguments, interval)
    return z
