"""The bookkeeping of a training step in one program: some forty numbers, for which torch takes two dozen launches."""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import on_device_of


@triton.jit(do_not_specialize=["count", "rows", "images"])
def _record(
    found,  # (1,)
    record,  # (5,)
    total,  # (4,)
    state,  # (2,) int64
    sums,  # (3,)
    sizes,  # (count,)
    count: tl.int64,
    rows: tl.int64,
    images: tl.int64,
    LASTING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    magnitude = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, count, BLOCK):
        place = start + tl.arange(0, BLOCK)
        magnitude += tl.load(sizes + place, mask=place < count, other=0.0).to(tl.float64)
    k = tl.arange(0, 4)
    terms = tl.load(sums + k, mask=k < 3, other=0.0).to(tl.float64)
    size = tl.sum(magnitude, axis=0) + tl.sum(terms, axis=0)
    bad = tl.where(tl.abs(size) < float("inf"), 0.0, 1.0)  # NaN is not less
    if LASTING:
        bad = tl.maximum(bad, tl.where(tl.load(found) > 0, 1.0, 0.0))
    known, step = tl.load(record), tl.load(state + 1)
    if tl.maximum(known, 1.0 - bad) == 0.0:  # the first
        tl.store(record + 1, step.to(tl.float64))
        tl.store(record + 2 + k, terms / rows.to(tl.float64), mask=k < 3)
    tl.store(record, known + bad)
    tl.store(found, bad.to(tl.float32))
    left_out = tl.where(k == 3, images, 0).to(tl.float64)
    tl.store(total + k, tl.load(total + k) + tl.where(bad > 0.0, left_out, terms))
    tl.store(state + 1, step + 1)


def record_step_(
    found: Tensor,
    record: Tensor,
    total: Tensor,
    state: Tensor,
    sums: Tensor,
    sizes: Tensor,
    rows: int,
    images: int,
    lasting: bool,
) -> None:
    """See :func:`fastvae.ops.internal.record_step.record_step_`."""
    with on_device_of(found):
        _record[1,](
            found, record, total, state, sums, sizes, len(sizes), rows, images, LASTING=lasting, BLOCK=64, num_warps=1
        )
