"""Black-and-white pixels drawn from grey ones: a byte read and a byte written, and a quad of words for each four."""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import on_device_of, plan
from ._noise import binarized
from ._tile import multiple, span


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
    chunk = tl.program_id(1).to(INDEX)
    length, step = multiple(length, INDEX, VECTOR, ALIGNED), tl.cast(chunks, INDEX) * (TILE * VECTOR)
    lead = 0 if ALIGNED else (first % 4).to(INDEX)  # the batch may start inside a quad
    for tile in range(chunk * (TILE * VECTOR), length + lead, step):
        start = tile - lead
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        grey = tl.load(target + place, mask=mask, other=0)
        tl.store(drawn + place, binarized(grey, state, stream, first + start, TILE, VECTOR), mask=mask)


def binarize(target: Tensor, state: Tensor, row_offset: int, stream: int) -> Tensor:
    drawn = target.new_empty(target.shape)
    cut = plan(target, False, row_offset=row_offset)
    if not cut.empty:
        meta = {name: value for name, value in cut.meta.items() if name != "COMPUTE"}  # it computes in integers
        with on_device_of(target):
            _binarize[cut.grid](target, drawn, state, cut.length, cut.chunks, cut.first, stream, **meta)
    return drawn
