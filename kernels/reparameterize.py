"""``z = mu + exp(logvar / 2) * eps``. The noise is drawn in registers and never stored: backward draws it again."""

from typing import Any

from torch import Tensor

from ._latent import backward, forward, unpack


def reparameterize(mu: Tensor, logvar: Tensor, *arguments: Any) -> Tensor:
    noise, clamp, _ = unpack(*arguments)
    z = mu.new_empty(mu.shape)
    forward(mu, logvar, clamp=clamp, z=z, noise=noise)
    return z


def reparameterize_backward(grad_z: Tensor, logvar: Tensor, *arguments: Any) -> Tensor:
    """Return the gradient of logvar; that of mu is ``grad_z``."""
    noise, clamp, _ = unpack(*arguments)
    return backward(grad_z, None, None, logvar, clamp=clamp, noise=noise)[1]
