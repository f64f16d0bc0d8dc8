"""Convolutional and residual VAEs for pictures, with latents that lie on a grid."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fastvae.nn import DiscretizedLogisticMixture, Likelihood, as_likelihood

from .blocks import Double, Flat, Grid, NormedConv, Residual, Stem, grid, halve, head, norm, widths
from .vae import VAE

_Model = TypeVar("_Model", bound=nn.Module)
MIXTURES = 5  # logistic components per pixel
_MEANS = (0.3, 0.7)  # of the first and the last component before training
_LOG_SCALE = -1.5  # before training: a logistic with a standard deviation of 0.4
_GAIN = 0.1  # on the last layer's initial weights: its outputs are pixel values in [0, 1], and logarithms of such


def conv_vae(
    shape: Sequence[int],
    width: int,
    latent_channels: int,
    likelihood: str | Likelihood = "bernoulli",
    *,
    blocks: int = 0,
    flat: bool = False,
) -> VAE:
    """Build a VAE of strided convolutions with group norm, in channels_last.

    Images (C, H, W) are halved until the grid is 4 to 7 a side, with twice the channels each time (at most 8 times
    ``width``); the decoder mirrors that. mu, logvar and z are (B, latent_channels, H', W'), or (B, latent_channels) if
    flat. For a flat z, only the direction matters: the norm after the decoder's first layer removes its length.

    Args:
        shape: (C, H, W) of the images; each side is 4 to 7 times a power of two.
        width: channels after the first halving.
        latent_channels: channels of z at each point of the grid, or the length of z if flat.
        likelihood: "mixture" (of discretised logistics, for 1 or 3 channels of 8 bits), or as for :class:`VAE`.
        flat: make z a vector in place of a grid, each of whose elements depends on the whole image.
        blocks: residual blocks after each halving and before each doubling; 0 means one convolution at the grid.

    Raises:
        ValueError: a side cannot be halved to 4 to 7.

    >>> conv_vae((1, 28, 28), 8, 2).sample(3).shape
    torch.Size([3, 1, 28, 28])
    """
    channels = shape[0]
    likelihood, out = outputs(likelihood, channels)
    count, sides = grid(shape)
    wide = widths(width, count)

    def middle(at: int) -> list[nn.Module]:
        if blocks:
            return [Residual(at) for _ in range(blocks)]
        return [NormedConv(at, at)] if at == wide[-1] else []

    steps: list[nn.Module] = []
    for before, after in zip([channels, *wide], wide, strict=False):
        steps += [halve(before, after, NormedConv if steps else Stem), *middle(after)]
    places = math.prod(sides) * wide[-1]
    if flat:
        packed = [Flat(), head(nn.Linear(places, 2 * latent_channels), latent_channels)]
        opening = [nn.Linear(latent_channels, places, bias=False), Grid(sides), norm(wide[-1]), nn.SiLU()]
    else:
        packed = [head(nn.Conv2d(wide[-1], 2 * latent_channels, 1), latent_channels)]
        opening = [Stem(latent_channels, wide[-1])]
    encoder = nn.Sequential(*steps, *ending(blocks, wide[-1]), *packed)
    steps = opening
    for level in reversed(range(1, count)):
        steps += [*middle(wide[level]), Double(wide[level], wide[level - 1])]
    decoder = nn.Sequential(*steps, *middle(wide[0]), *ending(blocks, wide[0]), Pixels(wide[0], out, likelihood))
    vae = VAE(encoder, decoder, likelihood, latent_shape=(latent_channels, *(() if flat else sides)))
    return lie_in(torch.channels_last, vae)


class Pixels(nn.Sequential):
    """The decoder's last layer: a convolution at half the size, whose channels become 2 x 2 pixels of ``out`` channels.

    A mixture begins with wide components in the middle of [0, 1], nearly the same for any input.
    """

    def __init__(self, channels: int, out: int, likelihood: Likelihood) -> None:
        convolution = nn.Conv2d(channels, 4 * out, 3, padding=1)
        super().__init__(convolution, nn.PixelShuffle(2))
        if isinstance(likelihood, DiscretizedLogisticMixture):
            assert convolution.bias is not None
            planes = convolution.bias.detach().view(-1, likelihood.mixtures, 4)  # shares; means; log-scales; couplings
            colours = 3 if len(planes) == 10 else 1
            planes.zero_()
            planes[1 : 1 + colours] = torch.linspace(*_MEANS, likelihood.mixtures)[:, None]
            planes[1 + colours : 1 + 2 * colours] = _LOG_SCALE
            convolution.weight.detach().mul_(_GAIN)


def outputs(likelihood: str | Likelihood, channels: int) -> tuple[Likelihood, int]:
    """Return the likelihood and the number of channels that the decoder needs for it."""
    if likelihood == "mixture":
        if channels not in (1, 3):
            raise ValueError(f"a mixture of logistics is for 1 or 3 channels, but the images have {channels}")
        return DiscretizedLogisticMixture(MIXTURES), MIXTURES * (3 if channels == 1 else 10)
    found = as_likelihood(likelihood)
    return found, channels


def ending(blocks: int, channels: int) -> list[nn.Module]:
    """Return the norm and SiLU that follow residual blocks, whose sum is not normalised; nothing without blocks."""
    return [norm(channels), nn.SiLU()] if blocks else []


def lie_in(layout: torch.memory_format, model: _Model) -> _Model:
    """Set the memory format of convolutions' weights in place, and so of their outputs; return the model."""
    for weight in _kernels(model):
        weight.data = weight.data.to(memory_format=layout)  # `contiguous` would leave the strides of 1 x 1 kernels
    return model


def has_convolutions(model: nn.Module) -> bool:
    """Return True if the model has a 2-d convolution."""
    return any(True for _ in _kernels(model))


def _kernels(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            yield from (weight for weight in module.parameters() if not is_lazy(weight) and weight.dim() == 4)
