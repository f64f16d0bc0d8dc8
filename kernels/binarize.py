"""Black-and-white pixels drawn from grey ones: one byte read and written a pixel, and one Philox call for four."""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import launch_config, on_device_of
from ._noise import binarized
from ._tile import program_segment, span


@triton.jit(do_not_specialize=["length", "chunks", "first", "stream"])
def _binarize(
    target,  # (length,) uint8
    drawn,  # (length,) uint8
    state,  # (2,) int64 [seed, step]
    length: tl.int64,
    chunks: tl.int64,
    first: tl.int64,
    stream: tl.int64,
    TILE: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
):
    _, chunk, length, step = program_segment(length, chunks, TILE, VECTOR, ALIGNED, INDEX)
    quad_offset = 0 if ALIGNED else (first % 4).to(INDEX)  # the batch may start inside a quad
    for tile in range(chunk * (TILE * VECTOR), length + quad_offset, step):
        start = tile - quad_offset
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        grey = tl.load(target + place, mask=mask, other=0)
        tl.store(drawn + place, binarized(grey, state, stream, first + start, TILE, VECTOR), mask=mask)


def binarize(target: Tensor, state: Tensor, row_offset: int, stream: int) -> Tensor:
    drawn = target.new_empty(target.shape)
    config = launch_config(target, False, row_offset=row_offset)
    if not config.empty:
        meta = {name: value for name, value in config.meta.items() if name != "COMPUTE"}  # it computes in integers
        with on_device_of(target):
            _binarize[config.grid](target, drawn, state, config.length, config.chunks, config.first, stream, **meta)
    return drawn
