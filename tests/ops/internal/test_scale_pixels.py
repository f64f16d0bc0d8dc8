"""uint8 pixels as x/255: to the bit what a cast and a division give."""

import pytest
import torch

from fastvae.ops import _library
from fastvae.ops.internal.scale_pixels import scale_pixels

# With the backend's name in theirs, the tests are among those that the sanitizers run.
pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
    pytest.mark.skipif(not _library.has_native(), reason="the C++ extension is not built: run `make setup`"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape", [(256,), (0, 1, 8, 8), (3, 1, 7, 11), (1, 511), (100, 784), (300, 1, 28, 28)], ids=str
)
def test_every_value_and_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    count = torch.Size(shape).numel()
    pixels = torch.arange(count).remainder(256).to(torch.uint8).view(shape)
    scaled = scale_pixels(pixels, dtype == torch.float32)
    assert scaled.dtype == dtype
    assert torch.equal(scaled, pixels.to(dtype) / 255)


def test_what_is_not_dense_or_no_pixel_is_an_error() -> None:
    for pixels in (torch.zeros(4, 6), torch.zeros(4, 6, dtype=torch.uint8).t(), torch.zeros(4, dtype=torch.int8)):
        with pytest.raises(RuntimeError, match=r"expected dense uint8 pixels on the CPU|unsupported dtype"):
            scale_pixels(pixels, wide=True)
