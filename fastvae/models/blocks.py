"""What encoders and decoders of pictures are made of."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GROUP = 8  # channels normalised together
_SMALLEST = 4  # side of the grid that the latents lie on: 4 to 7
_LOGVAR = -4.0  # of the first posteriors: a deviation of 0.14


_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)


def levels(side: int) -> int:
    """How often a side can be halved to end between 4 and 7. Raises ValueError for one that cannot.

    >>> [levels(side) for side in (28, 32, 40, 64, 256)]
    [2, 3, 3, 4, 6]
    """
    count = 0
    while side >= 2 * _SMALLEST:
        if side % 2:
            raise ValueError(
                f"an image's side is halved until it is 4 to 7, but {side} is odd on the way: use 28 or 64"
            )
        side, count = side // 2, count + 1
    if side < _SMALLEST:
        raise ValueError(f"images must be at least {_SMALLEST} pixels wide, but are {side}: use --image-size 28, say")
    return count


def grid(shape: Sequence[int]) -> tuple[int, tuple[int, int]]:
    """Of images (C, H, W): how often they are halved, and the sides of the grid of latents."""
    _, height, width = shape
    count = min(levels(height), levels(width))
    return count, (height >> count, width >> count)


def widths(width: int, count: int) -> list[int]:
    """Channels after each halving: twice as many each time, up to 8 times the first."""
    return [width * min(2**level, 8) for level in range(count)]


def norm(channels: int) -> nn.GroupNorm:
    """Over groups of 8 channels, of each image alone: a row does not depend on its batch.

    Where 8 do not divide the channels, groups are larger, so that any width will do.

    >>> [norm(channels).num_groups for channels in (4, 32, 34, 50, 60)]
    [1, 4, 2, 2, 1]
    """
    return nn.GroupNorm(math.gcd(channels, max(1, channels // _GROUP)), channels)


class NormedConv(nn.Sequential):
    """A convolution, group norm, SiLU. The norm has the bias."""

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1) -> None:
        padding = (kernel - stride + 1) // 2
        super().__init__(nn.Conv2d(channels, out, kernel, stride, padding, bias=False), norm(out), nn.SiLU())


class Stem(nn.Sequential):
    """A convolution and SiLU, for what comes from outside: a norm would take away how bright an image is, or how far
    out a latent.
    """

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(channels, out, kernel, stride, (kernel - stride + 1) // 2), nn.SiLU())


def halve(channels: int, out: int, of: type[NormedConv] | type[Stem] = NormedConv) -> nn.Sequential:
    """To half of each side, by a kernel that covers every pixel equally often."""
    return of(channels, out, kernel=4, stride=2)


def head(layer: _Layer, latent_dim: int) -> _Layer:
    """The layer, whose outputs are packed mu and logvar of latents, with posteriors that begin nearly certain.

    Under noise of the prior's size a decoder learns the mean image first, and an encoder that nobody listens to
    forgets the image.
    """
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias[latent_dim:] = _LOGVAR
    return layer


class Flat(nn.Module):
    """(B, C, H, W) to (B, H * W * C): a view of what lies in channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class Grid(nn.Module):
    """:class:`Flat` undone: (B, H * W * C) to (B, C, H, W), a view in channels_last."""

    def __init__(self, sides: tuple[int, int]) -> None:
        super().__init__()
        self.sides = sides

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.sides
        return x.view(len(x), height, width, -1).permute(0, 3, 1, 2)


class Double(nn.Sequential):
    """To twice each side: a convolution at the small size, whose channels become the places of the large one.

    Shi et al. 2016, "Real-time single image and video super-resolution using an efficient sub-pixel convolutional
    neural network", equation 4: a quarter of the multiplications of a convolution after upsampling.
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
        nn.init.zeros_(self.second.weight)  # so that a deep stack begins as no more than its stem

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(F.silu(self.norms[0](x)))
        change: Tensor = self.second(F.silu(self.norms[1](h)))
        return x + change
