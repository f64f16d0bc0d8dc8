"""Fully connected encoders and decoders."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from fastvae.nn import Likelihood

from .vae import VAE


class _Heads(nn.Module):
    """Two linear heads on one feature vector."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.mu = nn.Linear(features, latent_dim)
        self.logvar = nn.Linear(features, latent_dim)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.mu(h), self.logvar(h)


def mlp_vae(
    shape: Sequence[int],
    hidden: Sequence[int],
    latent_dim: int,
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
    likelihood: str | Likelihood = "bernoulli",
    packed: bool = False,
    sigmoid_mean: bool = False,
) -> VAE:
    """Build a VAE of fully connected layers. The encoder has the ``hidden`` widths, the decoder the same in reverse.

    Args:
        shape: (C, H, W) of the images, or any event shape.
        packed: use one head of 2 * latent_dim outputs, split in two, in place of two heads.
        sigmoid_mean: end the decoder in a sigmoid (for a Gaussian mean in [0, 1]; a Bernoulli takes logits).

    >>> import torch
    >>> mlp_vae((1, 8, 8), (32,), 4).sample(2).shape
    torch.Size([2, 1, 8, 8])
    """
    pixels = math.prod(shape)

    def layers(*widths: int) -> list[nn.Module]:
        return [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), activation())]

    head = nn.Linear(hidden[-1], 2 * latent_dim) if packed else _Heads(hidden[-1], latent_dim)
    encoder = nn.Sequential(nn.Flatten(), *layers(pixels, *hidden), head)
    last = [nn.Linear(hidden[0], pixels), *([nn.Sigmoid()] if sigmoid_mean else []), nn.Unflatten(1, tuple(shape))]
    decoder = nn.Sequential(*layers(latent_dim, *reversed(hidden)), *last)
    return VAE(encoder, decoder, likelihood, latent_shape=latent_dim)
