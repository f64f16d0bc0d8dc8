"""``z = mu + exp(logvar / 2) * eps``: the noise is drawn in registers, again in backward, and stored never."""

from torch import Tensor

from ._latent import Clamp, Noise, backward, forward


def reparameterize(
    mu: Tensor,
    logvar: Tensor,
    eps: Tensor | None,
    state: Tensor | None,
    row_offset: int,
    stream: int,
    low: float,
    high: float,
) -> Tensor:
    z = mu.new_empty(mu.shape)
    forward(mu, logvar, clamp=Clamp(low, high), z=z, noise=Noise(eps, state, row_offset, stream))
    return z


def reparameterize_backward(
    grad_z: Tensor,
    logvar: Tensor,
    eps: Tensor | None,
    state: Tensor | None,
    row_offset: int,
    stream: int,
    low: float,
    high: float,
) -> Tensor:
    """The gradient of logvar; that of mu is ``grad_z``."""
    noise = Noise(eps, state, row_offset, stream)
    return backward(grad_z, None, None, logvar, clamp=Clamp(low, high), noise=noise)[1]
