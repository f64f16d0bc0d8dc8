"""The figures of a run: loss curves, samples, reconstructions.

Matplotlib and Pillow take half a second to import, so they are imported where a figure is drawn. torchvision, which has
a function for grids, takes 1.7 s, and is not used.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fastvae.utils.files import atomic_write
from fastvae.utils.matplotlib_figures import new_figure, write_figure

_TILE = 56  # pixels: smaller images are enlarged to this, smoothly, as 8x8 squares are hard to read
_LINE = 2  # pixels between two images
_GREY = 0.25


def sample_grid(images: Tensor, columns: int = 8) -> Tensor:
    """Arrange images (N, C, H, W) in [0, 1] in a grid (3, H, W)."""
    return _grid(_displayable(images), columns)


def reconstruction_grid(images: Tensor, reconstructions: Tensor, columns: int = 8) -> Tensor:
    """Arrange rows in pairs in a grid (3, H, W): images above, their reconstructions below."""
    real, reconstructed = (_displayable(batch).split(columns) for batch in (images, reconstructions))
    return _grid(torch.cat([row for pair in zip(real, reconstructed, strict=True) for row in pair]), columns)


def grid_bytes(shape: Sequence[int]) -> int:
    """Return the bytes that a grid takes for each of its images of ``shape`` (C, H, W), in fp32 RGB."""
    factor = max(1, _TILE // max(shape[-2:]))
    return 3 * math.prod(size * factor for size in shape[-2:]) * 4


def write_image(grid: Tensor, path: Path) -> Path:
    """Write a grid (3, H, W) in [0, 1] as a PNG."""
    from PIL import Image  # noqa: PLC0415

    with atomic_write(path) as file:
        Image.fromarray((grid * 255).byte().permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return path


def write_curves(metrics: Sequence[dict[str, Any]], path: Path) -> Path:
    """Draw loss, nll and KL against epochs, train and test, from the lines of metrics.jsonl.

    The training loss is that of the run's objective; the test loss is the negative ELBO.
    """
    figure = new_figure(figsize=(12, 3.6))
    axes = figure.subplots(1, 3)
    for axis, (name, title) in zip(
        axes, (("loss", "loss (test: negative ELBO)"), ("nll", "reconstruction (nll)"), ("kl", "KL")), strict=True
    ):
        for split in ("train", "test"):
            lines = [line for line in metrics if line["split"] == split]
            marker = "o" if len(lines) < 40 else None
            epochs, values = ([line[key] for line in lines] for key in ("epoch", name))
            axis.plot(epochs, values, marker=marker, ms=3, label=split)
        axis.set(title=title, xlabel="epoch", ylabel="nats per sample")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    write_figure(figure, path, dpi=120)
    return path


def _grid(images: Tensor, columns: int) -> Tensor:
    """Arrange images (N, C, H, W), C 1 or 3, in a grid (3, H, W): torchvision's ``make_grid`` with grey lines."""
    count, _, height, width = images.shape
    if count == 1:
        return images[0].expand(3, height, width)
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    grid = torch.full((3, rows * (height + _LINE) + _LINE, columns * (width + _LINE) + _LINE), _GREY)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top = _LINE + row * (height + _LINE)
        left = _LINE + column * (width + _LINE)
        grid[:, top : top + height, left : left + width] = image
    return grid


def _displayable(images: Tensor) -> Tensor:
    """Convert images (N, C, H, W), uint8 or floating, to fp32 grey or RGB on the host in [0, 1]; enlarge small ones."""
    images = images.detach().cpu()
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    pixels = pixels[:, : 3 if pixels.shape[1] >= 3 else 1]
    factor = _TILE // max(pixels.shape[-2:])
    if factor > 1:
        pixels = interpolate(pixels, scale_factor=factor, mode="bicubic")
    return pixels.clamp(0, 1)
