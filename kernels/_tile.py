"""Where the elements of a tile are: shared by all kernels (see _launch.py for what a tile is)."""

import triton
import triton.language as tl


@triton.jit
def span(start, length, VECTOR: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr):
    """Places within a dense segment, (TILE, VECTOR), and their mask; the mask is one a vector if ALIGNED."""
    head = start + tl.arange(0, TILE)[:, None] * VECTOR
    place = head + tl.arange(0, VECTOR)[None, :]
    # A segment that starts inside a quad is read from the quad's start, where place is negative.
    mask = head < length if ALIGNED else (place >= 0) & (place < length)
    return place, mask


@triton.jit
def rows_and_columns(start, event, VECTOR: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr):
    """The same places as (row, column) of rows of ``event`` elements: one division a vector if ALIGNED."""
    head = start + tl.arange(0, TILE)[:, None] * VECTOR
    lane = tl.arange(0, VECTOR)[None, :]
    if ALIGNED:
        row = head // event
        column = head - row * event + lane
    else:
        row = (head + lane) // event
        column = head + lane - row * event
    return row, column


@triton.jit
def multiple(value, dtype: tl.constexpr, VECTOR: tl.constexpr, ALIGNED: tl.constexpr):
    """A size as an index. Where the launcher found it a multiple of VECTOR, say so to the compiler (it folds)."""
    value = tl.cast(value, dtype)
    if ALIGNED:
        value = value // VECTOR * VECTOR
    return value


@triton.jit
def strided(start, event, stride, VECTOR: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr, DENSE: tl.constexpr):
    """Offsets, (TILE, VECTOR), into a tensor whose rows of ``event`` elements are ``stride`` apart."""
    if DENSE:
        offset = start + tl.arange(0, TILE)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    else:
        row, column = rows_and_columns(start, event, VECTOR, TILE, ALIGNED)
        offset = row * stride + column
    return offset
