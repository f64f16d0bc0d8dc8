"""The reparameterisation step."""

from typing import Any

import torch
from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import first_order
from .noise import Noise, noise_arguments

_library.define(
    "reparameterize(Tensor mu, Tensor logvar, Tensor? eps, Tensor? state, SymInt row_offset, int stream,"
    " float low, float high) -> Tensor",
    lambda mu, *_: mu.new_empty(mu.shape),
    module="reparameterize",
)
_library.define(
    "reparameterize_backward(Tensor grad_z, Tensor logvar, Tensor? eps, Tensor? state, SymInt row_offset, int stream,"
    " float low, float high) -> Tensor",
    lambda grad_z, logvar, *_: logvar.new_empty(logvar.shape),
    module="reparameterize",
)


class _Reparameterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        forward: Any,
        backward: Any,
        mu: Tensor,
        logvar: Tensor,
        eps: Tensor | None,
        state: Tensor | None,
        row_offset: int,
        stream: int,
        low: float,
        high: float,
    ) -> Tensor:
        ctx.save_for_backward(logvar, eps, state)
        ctx.operator, ctx.constants = backward, (row_offset, stream, low, high)
        z: Tensor = forward(mu, logvar, eps, state, row_offset, stream, low, high)
        return z

    @staticmethod
    @first_order
    def backward(ctx: Any, grad_z: Tensor) -> tuple[Tensor | None, ...]:
        logvar, eps, state = ctx.saved_tensors
        grad_logvar = ctx.operator(grad_z.contiguous(), logvar, eps, state, *ctx.constants)
        return (None, None, grad_z, grad_logvar, *(None,) * 6)


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
            default generator, which ``torch.manual_seed`` rules.
        clamp: (low, high): logvar is clamped to it first, in the kernel; it has a gradient on the bounds, none outside,
            and NaN stays NaN. (-30.0, 20.0) is that of latent diffusion's autoencoders (Rombach et al. 2022).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        z, dense, in the shape and type of ``mu``.

    Raises:
        ValueError: shapes or devices differ, the clamp is no interval, or an option is unknown.
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
        return reference.reparameterize(mu, logvar, arguments.draw(mu), clamp=clamp)
    if torch.is_grad_enabled() and (mu.requires_grad or logvar.requires_grad):
        z: Tensor = _Reparameterize.apply(
            operators.reparameterize, operators.reparameterize_backward, mu, logvar, *arguments, *interval
        )
    else:
        z = operators.reparameterize(mu, logvar, *arguments, *interval)
    return z
