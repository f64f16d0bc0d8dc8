"""Pixel shuffle in channels_last, and its inverse: torch's numbers, to the bit."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastvae.ops import _library
from fastvae.ops.internal.pixel_shuffle import pixel_shuffle, pixel_unshuffle

# With the backend's name in theirs, the tests are among those that the sanitizers run.
pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
    pytest.mark.skipif(not _library.has_native(), reason="the C++ extension is not built: run `make setup`"),
]


def in_channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("factor", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("images", "channels", "height", "width"),
    [(128, 24, 7, 7), (3, 1, 14, 14), (2, 1, 1, 9), (5, 7, 3, 1), (1, 33, 2, 3), (0, 4, 8, 8), (70, 65, 4, 5)],
)
def test_every_shape(images: int, channels: int, height: int, width: int, factor: int, dtype: torch.dtype) -> None:
    small = in_channels_last(torch.randn(images, channels * factor**2, height, width).to(dtype))
    large = in_channels_last(F.pixel_shuffle(small, factor))
    for own, expected in ((pixel_shuffle(small, factor), large), (pixel_unshuffle(large, factor), small)):
        assert torch.equal(own, expected)
        assert own.dtype == dtype
        assert own.is_contiguous(memory_format=torch.channels_last)


def test_what_it_cannot_shuffle_is_an_error() -> None:
    images = in_channels_last(torch.zeros(2, 6, 4, 5))
    for own, given, message in (
        (pixel_shuffle, torch.zeros(2, 8, 4, 4), "channels_last"),
        (pixel_shuffle, torch.zeros(8, 4, 4), "N, C, H, W"),
        (pixel_shuffle, images, "channels for each pixel"),
        (pixel_unshuffle, images, "sides that the factor divides"),
        (pixel_unshuffle, images.double()[..., :4], "channels_last"),
        (pixel_unshuffle, in_channels_last(torch.zeros(2, 6, 4, 4, dtype=torch.float64)), "fp32, bf16 or fp16"),
    ):
        with pytest.raises(RuntimeError, match=message):
            own(given, 2)
    with pytest.raises(RuntimeError, match="channels for each pixel"):
        pixel_shuffle(images, 0)
