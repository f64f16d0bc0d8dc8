"""How tensors (B, planes, ...) with several predictions a pixel are cut: tiles of a few planes and a few pixels.

A tile is (planes, PIXELS, VECTOR), VECTOR as in _launch.py. Planes come first, so that a reduction over them leaves
each thread's pixels where they are; their number is a power of two, of which the kernel masks what is not there.
"""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import NONE, Plan, plan
from ._tile import multiple, span, strided


def plan_planes(tensor: Tensor, reduction: int, most: int, elements: int, warps: int) -> tuple[Plan, dict[str, int]]:
    """Cut the pixels of ``tensor`` (B, planes, ...) into tiles of ``most`` planes, ``elements`` in all."""
    inner = tensor[0, 0].numel() if tensor.shape[0] else 0
    stride = tensor.shape[1] * inner
    cut = plan(tensor[:, 0], reduction == NONE, strides=(stride,))
    meta = {key: value for key, value in cut.meta.items() if key != "TILE"}
    meta |= {"PIXELS": max(1, elements // (most * meta["VECTOR"])), "num_warps": warps}
    chunks = triton.cdiv(cut.length, meta["PIXELS"] * meta["VECTOR"])
    # Where each sample has programs of its own, a few waves of an H100 share them; else one second stage's worth.
    limit = 4096 if reduction != NONE else triton.cdiv(4096, max(cut.rows, 1))
    return cut._replace(chunks=max(1, min(chunks, limit)), meta=meta), {"inner": inner, "planes": tensor.shape[1]}


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
    stride = multiple(inner, INDEX, VECTOR, ALIGNED) * planes
    offset = strided(start, multiple(inner, INDEX, VECTOR, ALIGNED), stride, VECTOR, PIXELS, ALIGNED, DENSE)
    return row * stride.to(tl.int64) + offset, mask
