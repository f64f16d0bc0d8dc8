"""The split of tensors (B, planes, ...) with several predictions a pixel into tiles of a few planes and pixels.

A tile is (planes, PIXELS, VECTOR), VECTOR as in _launch.py. Planes come first, so that a reduction over them leaves
each thread's pixels in place. Their number is a power of two; the kernel masks the planes that do not exist.
"""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import NONE, LaunchConfig, launch_config
from ._tile import multiple_of_vector, span, strided


def plane_launch_config(
    tensor: Tensor, reduction: int, most: int, elements: int, warps: int
) -> tuple[LaunchConfig, dict[str, int]]:
    """Split the pixels of ``tensor`` (B, planes, ...) into tiles of ``most`` planes, ``elements`` in all."""
    inner = tensor[0, 0].numel() if tensor.shape[0] else 0
    stride = tensor.shape[1] * inner
    config = launch_config(tensor[:, 0], reduction == NONE, strides=(stride,))
    meta = {key: value for key, value in config.meta.items() if key != "TILE"}
    meta |= {"PIXELS": max(1, elements // (most * meta["VECTOR"])), "num_warps": warps}
    chunks = triton.cdiv(config.length, meta["PIXELS"] * meta["VECTOR"])
    # Losses for each sample: a few waves of an H100 in all. One loss: as many partials as the last block adds at once.
    limit = 4096 if reduction != NONE else triton.cdiv(4096, max(config.rows, 1))
    return config._replace(chunks=max(1, min(chunks, limit)), meta=meta), {"inner": inner, "planes": tensor.shape[1]}


@triton.jit
def locate(
    start,
    row,
    length,
    inner,
    planes,
    PIXELS: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    DENSE: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Offsets of a tile's pixels in the first of ``planes`` planes, (PIXELS, VECTOR), and their mask."""
    _, mask = span(start, length, VECTOR, PIXELS, ALIGNED)
    stride = multiple_of_vector(inner, INDEX, VECTOR, ALIGNED) * planes
    offset = strided(start, multiple_of_vector(inner, INDEX, VECTOR, ALIGNED), stride, VECTOR, PIXELS, ALIGNED, DENSE)
    return row * stride.to(tl.int64) + offset, mask
