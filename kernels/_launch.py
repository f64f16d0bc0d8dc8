"""The split of work into programs, and the ordered end of every reduction.

A tensor is ``rows`` segments of ``length`` elements: one segment for a scalar loss, one a sample for
``reduction="none"``. Each segment is shared by ``chunks`` programs. Program k sums tiles k, k + chunks, ... into one
partial, and the program that ends last adds the partials in order. The split depends on the shape alone, never on the
device, and which program ends last does not change the sum: the same call gives the same bits.

A tile is (TILE, VECTOR): VECTOR elements are one 128-bit access of the prediction's type (two for fp64) and one or
two quads of noise, and consecutive threads take consecutive vectors. The narrow second axis keeps Triton from giving
a thread 16 elements in a row for the sake of the uint8 target, which would split every fp32 access into strided
quarters.
"""

import contextlib
import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

NONE, SUM, BATCHMEAN = range(3)

# Tile sizes are reasoned, NOT YET MEASURED ON A GPU: (elements up to, vectors a program, warps). Small tensors are
# split finely, so that 512 x 64 latents make 128 programs; large ones give each thread two vectors in flight.
_TILES = ((2**18, 64, 2), (2**21, 128, 4), (2**63, 512, 8))
_INT32_REACH = 2**30  # elements up to which offsets are int32, with headroom for the last step of a loop over tiles
_MAX_CHUNKS = 4096  # partials of a scalar loss: about 4 waves of an H100
_BLOCK = tl.constexpr(1024)  # partials that the last program adds at a time


class LaunchConfig(NamedTuple):
    """The split of a tensor: the grid, the sizes that kernels are passed, and their compile-time constants."""

    rows: int
    length: int
    chunks: int
    event: int
    first: int
    meta: dict[str, Any]

    @property
    def grid(self) -> tuple[int, int]:
        return self.rows, self.chunks

    @property
    def empty(self) -> bool:
        return self.rows * self.length == 0


def launch_config(
    like: Tensor,
    per_row: bool,
    *,
    strides: tuple[int, ...] = (),
    row_offset: int = 0,
    max_chunks: int | None = None,
    max_tile: int = 512,
) -> LaunchConfig:
    """Split ``like`` (B, ...) into programs. ``strides`` are the row strides of the inputs that may not be dense.

    ALIGNED says that vectors never straddle the end of a segment, a row or a quad of noise. Then one comparison masks a
    whole vector, and accesses are wide whatever the batch size.
    """
    batch = like.shape[0]
    numel = like.numel()
    event = math.prod(like.shape[1:])
    first = row_offset * event  # the global index of element 0, from which the noise counts
    rows, length = (batch, event) if per_row else (1, numel)
    vector = 8 if like.dtype in (torch.bfloat16, torch.float16) else 4
    max_chunks = max_chunks or _MAX_CHUNKS
    tile, warps = next((tile, warps) for limit, tile, warps in _TILES if numel <= limit)
    tile = min(tile, max_tile, 256 if like.dtype == torch.float64 else 512)  # in fp64, a vector is two accesses
    if per_row:
        tile = min(tile, max(32, triton.next_power_of_2(triton.cdiv(length, vector))))
        max_chunks = 1 if rows >= 256 else min(max_chunks, triton.cdiv(1024, max(rows, 1)))
    warps = max(1, min(warps, tile // 32))
    dense = per_row or batch <= 1 or all(stride == event for stride in strides)
    widths = (length, first, *((event, *strides) if not dense or rows > 1 else ()))
    reach = max(numel, *(batch * abs(stride) for stride in strides), 0)
    meta = {
        "TILE": tile,
        "VECTOR": vector,
        "ALIGNED": all(width % vector == 0 for width in widths),
        "INDEX": tl.int32 if reach < _INT32_REACH else tl.int64,
        "COMPUTE": tl.float64 if like.dtype == torch.float64 else tl.float32,
        "num_warps": warps,
        "num_stages": 1,
    }
    if strides:
        meta["DENSE"] = dense
    # One more vector than the length needs: a segment that starts inside a quad is read from that quad's start.
    chunks = triton.cdiv(length + (0 if meta["ALIGNED"] else 3), tile * vector)
    return LaunchConfig(rows, length, max(1, min(chunks, max_chunks)), event, first, meta)


def row_stride(tensor: Tensor) -> int:
    """The row stride of a tensor with dense rows. That of a single row is never used, whatever torch calls it."""
    return tensor.stride(0) if tensor.shape[0] > 1 else math.prod(tensor.shape[1:])


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[None]:
    """Make the tensor's device the current one, on which Triton launches. Costs nothing if it is already, as usual."""
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()


def folded_weight(weight: float, reduction: int, batch: int) -> float:
    return weight / batch if reduction == BATCHMEAN and batch else weight


def empty_gradient(tensor: Tensor, reduction: int, with_grad: bool) -> Tensor:
    return tensor.new_empty(tensor.shape if with_grad and reduction != NONE else (0,))


class Sum(NamedTuple):
    """The memory of a sum: the loss, and unless each segment has one program, its partials and its semaphore."""

    loss: Tensor | None
    partials: Tensor | None  # (rows, chunks)
    semaphores: Tensor | None  # (rows,) int32, at zero between launches


def summation(like: Tensor, reduction: int, config: LaunchConfig) -> Sum:
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    shape = (like.shape[0],) if reduction == NONE else ()
    if config.empty:
        mean_of_nothing = reduction == BATCHMEAN and like.shape[0] == 0
        return Sum(like.new_full(shape, math.nan if mean_of_nothing else 0.0, dtype=dtype), None, None)
    loss = like.new_empty(shape, dtype=dtype)
    if config.chunks == 1:
        return Sum(loss, None, None)
    return Sum(loss, like.new_empty((config.rows, config.chunks), dtype=dtype), _semaphores(like, config.rows))


_zeros: dict[tuple[torch.device, int], Tensor] = {}


def _semaphores(like: Tensor, rows: int) -> Tensor:
    """Counters at zero. Launches on one stream share them: each follows the one before, and leaves zeros again."""
    if like.is_cuda and torch.cuda.is_current_stream_capturing():
        # A graph zeroes counters of its own, because it may be replayed on any stream.
        return torch.zeros(rows, dtype=torch.int32, device=like.device)
    stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else 0
    semaphores = _zeros.get((like.device, stream))
    if semaphores is None or len(semaphores) < rows:
        # More than 256 segments have one program each, and need no semaphores.
        semaphores = _zeros[like.device, stream] = torch.zeros(max(rows, 256), dtype=torch.int32, device=like.device)
    return semaphores


@triton.jit
def scalar(value, tensor, dtype: tl.constexpr):
    """A host factor times an optional 0-d device tensor; in fp64 up to here, since hosts pass fp64."""
    value = tl.full((), value, tl.float64)
    if tensor is not None:
        value = value * tl.load(tensor).to(tl.float64)
    return value.to(dtype)


@triton.jit
def row_factor(grad_output, row, weight, weight_tensor, dtype: tl.constexpr):
    """The factor of a segment's gradients: the weight, times the loss's own gradient where that is not None."""
    factor = scalar(weight, weight_tensor, dtype)
    if grad_output is not None:
        factor *= tl.load(grad_output + row).to(dtype)
    return factor


@triton.jit
def last_block_reduction(
    partial,
    loss,  # (rows,)
    partials,  # (rows, chunks) or None: one program a segment
    semaphores,  # (rows,) int32 or None
    weight_tensor,  # () or None
    weight,
    row,
    chunk,
    chunks,
):
    """End a program: store its partial sum; in the last program of a segment, add the partials and write the loss.

    They are added in order and in fp64, and multiplied by the weight. This takes no second launch.
    """
    factor = scalar(weight, weight_tensor, tl.float64)
    if partials is None:
        tl.store(loss + row, partial.to(tl.float64) * factor)
    else:
        tl.store(partials + row * chunks + chunk, partial)
        # One thread stores the partial and increments the semaphore. Release: a program that sees the increment sees
        # the partial. Acquire: the last program sees all partials, past the first-level cache.
        if tl.atomic_add(semaphores + row, 1, sem="acq_rel") == chunks - 1:
            total = tl.zeros((_BLOCK,), tl.float64)
            for start in range(0, chunks, _BLOCK):
                k = start + tl.arange(0, _BLOCK)
                total += tl.load(partials + row * chunks + k, mask=k < chunks, other=0.0, cache_modifier=".cg")
            tl.store(loss + row, tl.sum(total, axis=0) * factor)
            tl.store(semaphores + row, 0)  # for the next launch
