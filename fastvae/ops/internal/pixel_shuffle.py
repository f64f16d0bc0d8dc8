"""Pixel shuffle and its inverse on the CPU, in channels_last. Traced steps call them."""

import torch
from torch import Tensor

from fastvae.ops import _library


def _in_channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


# ``pixel_shuffle(x, factor)``: (N, C * factor**2, H, W) in channels_last to (N, C, H * factor, W * factor), in
# channels_last; equal to :func:`torch.nn.functional.pixel_shuffle`. ``pixel_unshuffle(x, factor)`` is its inverse.
# fp32, bf16 and fp16.
_library.define_of_cpu(
    "pixel_shuffle(Tensor x, int factor) -> Tensor",
    lambda x, factor: _in_channels_last(torch.nn.functional.pixel_shuffle(x, factor)),
)
_library.define_of_cpu(
    "pixel_unshuffle(Tensor x, int factor) -> Tensor",
    lambda x, factor: _in_channels_last(torch.nn.functional.pixel_unshuffle(x, factor)),
)
pixel_shuffle = torch.ops.fastvae.pixel_shuffle.default
pixel_unshuffle = torch.ops.fastvae.pixel_unshuffle.default
