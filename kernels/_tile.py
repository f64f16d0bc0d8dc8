"""The places of a tile's elements, and the accesses to them, shared by all kernels. _launch.py says what a tile is."""

import triton
import triton.language as tl


@triton.jit
def program_segment(
    length, chunks,
    TILE: tl.constexpr, VECTOR: tl.constexpr, ALIGNED: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """The program's segment and its number in it, the segment's length, and the elements from one tile to its next."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1).to(INDEX)
    return row, chunk, multiple_of_vector(length, INDEX, VECTOR, ALIGNED), tl.cast(chunks, INDEX) * (TILE * VECTOR)


@triton.jit
def span(start, length, VECTOR: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr):
    """The places of a tile in a dense segment, (TILE, VECTOR), and their mask: (TILE, 1) if ALIGNED."""
    head = start + tl.arange(0, TILE)[:, None] * VECTOR
    place = head + tl.arange(0, VECTOR)[None, :]
    # A segment that starts inside a quad is read from the quad's start, where place is negative.
    mask = head < length if ALIGNED else (place >= 0) & (place < length)
    return place, mask


@triton.jit
def rows_and_columns(start, event, VECTOR: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr):
    """The places of a tile as (row, column) of rows of ``event`` elements: one division a vector if ALIGNED."""
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
def multiple_of_vector(value, dtype: tl.constexpr, VECTOR: tl.constexpr, ALIGNED: tl.constexpr):
    """A size as an index. If the launcher found it a multiple of VECTOR, tell the compiler, as tl.multiple_of does."""
    value = tl.cast(value, dtype)
    if ALIGNED:
        value = value // VECTOR * VECTOR
    return value


@triton.jit
def strided(start, event, stride, VECTOR: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr, DENSE: tl.constexpr):
    """The offsets of a tile, (TILE, VECTOR), in a tensor whose rows of ``event`` elements are ``stride`` apart."""
    if DENSE:
        offset = start + tl.arange(0, TILE)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    else:
        row, column = rows_and_columns(start, event, VECTOR, TILE, ALIGNED)
        offset = row * stride + column
    return offset


@triton.jit
def load_rows(
    pointer, row, start, event, stride, mask,
    VECTOR: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr, DENSE: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """A tile of a segment of a tensor whose rows are ``stride`` apart, in the type of the computation."""
    offset = strided(start, event, stride, VECTOR, TILE, ALIGNED, DENSE)
    return tl.load(pointer + row * stride + offset, mask=mask, other=0.0).to(COMPUTE)


@triton.jit
def store(pointer, offset, value, mask):
    """Store a tile in the type of the tensor."""
    tl.store(pointer + offset, value.to(pointer.dtype.element_ty), mask=mask)
