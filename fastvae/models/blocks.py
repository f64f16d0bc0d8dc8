"""Building blocks of convolutional encoders and decoders."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GROUP = 8  # channels normalised together
_SMALLEST = 4  # side of the grid that the latents lie on: 4 to 7
_LOGVAR = -4.0  # of posteriors before training: a standard deviation of 0.14


_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)


def _fitting(side: int, direction: int) -> int:
    """Return the next side, from one on, that can be halved until it is between 4 and 7."""
    while side % (1 << max(0, side.bit_length() - 3)):  # three leading bits are 4 to 7
        side += direction
    return side


def levels(side: int) -> int:
    """Return how often a side can be halved until it is between 4 and 7. Raises ValueError if it cannot.

    >>> [levels(side) for side in (28, 32, 40, 64, 256)]
    [2, 3, 3, 4, 6]
    """
    count = 0
    given = side
    while side >= 2 * _SMALLEST:
        if side % 2:
            raise ValueError(
                f"an image's side is halved until it is 4 to 7, but of {given}, {side} is odd on the way: use "
                f"--image-size {_fitting(given, -1)} or {_fitting(given, 1)}"
            )
        side //= 2
        count += 1
    if side < _SMALLEST:
        raise ValueError(f"images must be at least {_SMALLEST} pixels wide, but are {side}: use --image-size 28, say")
    return count


def grid(shape: Sequence[int]) -> tuple[int, tuple[int, int]]:
    """Return how often images (C, H, W) are halved, and the sides (H', W') of the grid of latents."""
    _, height, width = shape
    count = min(levels(height), levels(width))
    return count, (height >> count, width >> count)


def widths(width: int, count: int) -> list[int]:
    """Return the channels after each halving: doubled each time, up to 8 times the first."""
    return [width * min(2**level, 8) for level in range(count)]


def norm(channels: int) -> nn.GroupNorm:
    """Return a group norm over groups of 8 channels. It normalises each image alone, whatever else is in the batch.

    If 8 does not divide the channels, groups are larger, so that any width works.

    >>> [norm(channels).num_groups for channels in (4, 32, 34, 50, 60)]
    [1, 4, 2, 2, 1]
    """
    return nn.GroupNorm(math.gcd(channels, max(1, channels // _GROUP)), channels)


class NormedConv(nn.Sequential):
    """A convolution without bias, a group norm with one, and SiLU."""

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1) -> None:
        padding = (kernel - stride + 1) // 2
        super().__init__(nn.Conv2d(channels, out, kernel, stride, padding, bias=False), norm(out), nn.SiLU())


class Stem(nn.Sequential):
    """A convolution and SiLU, for the first layer on images or latents.

    It has no norm, which would remove the brightness of an image, or the distance of a latent from the origin.
    """

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(channels, out, kernel, stride, (kernel - stride + 1) // 2), nn.SiLU())


def halve(channels: int, out: int, of: type[NormedConv] | type[Stem] = NormedConv) -> nn.Sequential:
    """Return a layer that halves each side, with a kernel that covers every pixel equally often."""
    return of(channels, out, kernel=4, stride=2)


def head(layer: _Layer, latent_dim: int) -> _Layer:
    """Initialise the layer that outputs packed mu and logvar, so that posteriors begin narrow, and return it.

    Under noise as wide as the prior, a decoder first learns the mean image and ignores its latents; the encoder, whose
    output does not matter then, forgets the image.
    """
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias[latent_dim:] = _LOGVAR
    return layer


class Flat(nn.Module):
    """Flattens (B, C, H, W) to (B, H * W * C): a view, if the input is in channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class Grid(nn.Module):
    """Undoes :class:`Flat`: (B, H * W * C) to (B, C, H, W), a view in channels_last."""

    def __init__(self, sides: tuple[int, int]) -> None:
        super().__init__()
        self.sides = sides

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.sides
        return x.view(len(x), height, width, -1).permute(0, 3, 1, 2)


class Double(nn.Sequential):
    """Doubles each side: a convolution at the small size, whose channels become the pixels of the large one.

    Shi et al. 2016, "Real-time single image and video super-resolution using an efficient sub-pixel convolutional
    neural network", equation 4. It takes a quarter of the multiplications of a convolution after upsampling.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 4 * out, 3, padding=1, bias=False), nn.PixelShuffle(2), norm(out), nn.SiLU()
        )


class Residual(nn.Module):
    """``x + conv(silu(norm(conv(silu(norm(x))))))`` (He et al. 2016, "Identity mappings in deep residual networks")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norms = nn.ModuleList([norm(channels), norm(channels)])
        nn.init.zeros_(self.second.weight)  # each block begins as the identity, so that a deep stack begins as its stem

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(F.silu(self.norms[0](x)))
        change: Tensor = self.second(F.silu(self.norms[1](h)))
        return x + change
