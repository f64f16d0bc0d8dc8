"""The importance-weighted bound of each row: one pass reads both inputs and writes both gradients (16 bytes in fp32).

A program takes ROWS rows at a time. A row of more than COLUMNS samples is summed tile by tile, with the sum measured
from the largest weight so far, and read again (from the cache) for its gradient.
"""

import math

import triton
import triton.language as tl
from torch import Tensor, float64

from ._launch import (
    NONE,
    LaunchConfig,
    Sum,
    empty_gradient,
    folded_weight,
    last_block_reduction,
    on_device_of,
    scalar,
    summation,
)
from ._tile import multiple_of_vector, store

# Samples a tile: eight a thread, NOT YET MEASURED ON A GPU. Programs: what the second stage adds in one tile.
_TILE = 1024
_WARPS = 4
_MAX_PROGRAMS = 4096
_INTEGERS = ["batch", "samples", "chunks", "stride_output"]
_INFINITY = tl.constexpr(math.inf)
_NO_SUM = Sum(None, None, None)


@triton.jit
def _values(
    nll, log_ratio, row, start, batch, samples,
    COLUMNS: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Minus the log-weights of a tile, (ROWS, COLUMNS), infinite after the last sample; their places and mask."""
    column = start + tl.arange(0, COLUMNS)[None, :]
    place = row[:, None] * samples + column
    mask = (row[:, None] < batch) & (column < samples)
    value = tl.load(nll + place, mask=mask, other=tl.where(column < samples, 0.0, _INFINITY)).to(COMPUTE)
    value += tl.load(log_ratio + place, mask=mask, other=0.0).to(COMPUTE)
    return value, place, mask


@triton.jit
def _origin(least):
    """The largest log-weight, from which the others are measured; 0 if it is infinite, as inf - inf would be NaN."""
    return tl.where(tl.abs(least) == _INFINITY, 0.0, least)


@triton.jit(do_not_specialize=_INTEGERS)
def _bound(
    nll,  # (B, K)
    log_ratio,  # (B, K)
    bounds,  # (B,) or None: not for each row
    loss,  # () or None: not summed
    partials,  # (chunks,) or None
    semaphores,  # (1,) or None
    grad_nll,  # (B, K) or None
    grad_log_ratio,  # (B, K) or None
    grad_output,  # (B,) or (), or None: 1
    weight_tensor,  # () or None
    batch: tl.int64,
    samples: tl.int64,
    chunks: tl.int64,
    stride_output: tl.int64,
    log_samples: tl.float64,
    weight: tl.float64,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    program = tl.program_id(0).to(INDEX)
    step = tl.cast(chunks, INDEX)
    batch = tl.cast(batch, INDEX)
    samples = multiple_of_vector(samples, INDEX, VECTOR, ALIGNED)
    factor, constant = scalar(weight, weight_tensor, COMPUTE), scalar(log_samples, None, COMPUTE)
    total = tl.zeros((ROWS,), COMPUTE)
    for block in range(program, tl.cdiv(batch, ROWS), step):
        row = block * ROWS + tl.arange(0, ROWS)
        if WHOLE:
            value, place, mask = _values(nll, log_ratio, row, 0, batch, samples, COLUMNS, COMPUTE)
            least = tl.min(value, axis=1)
            origin = _origin(least)
            value = tl.exp(origin[:, None] - value)
            weights = tl.sum(value, axis=1)
        else:
            least = tl.full((ROWS,), _INFINITY, COMPUTE)
            weights = tl.zeros((ROWS,), COMPUTE)
            for start in range(0, samples, COLUMNS):
                value, place, mask = _values(nll, log_ratio, row, start, batch, samples, COLUMNS, COMPUTE)
                before = least
                least = tl.minimum(least, tl.min(value, axis=1))
                # Samples of no weight at all leave a sum of 0 (or NaN), wherever it is measured from.
                before = tl.where(before == _INFINITY, least, before)
                weights *= tl.exp(_origin(least) - _origin(before))
                weights += tl.sum(tl.exp(_origin(least)[:, None] - value), axis=1)
            origin = _origin(least)
        bound = tl.where(origin == least, origin - tl.log(weights), least)
        bound = tl.where(weights == weights, bound, weights) + constant
        if bounds is not None:
            tl.store(bounds + row, factor * bound, mask=row < batch)
        if loss is not None:
            total += tl.where(row < batch, bound, 0.0)
        if grad_nll is not None:
            scale = factor / weights
            if grad_output is not None:
                scale *= tl.load(grad_output + row * stride_output, mask=row < batch, other=0.0)
            if WHOLE:
                store(grad_nll, place, scale[:, None] * value, mask)
                store(grad_log_ratio, place, scale[:, None] * value, mask)
            else:
                for start in range(0, samples, COLUMNS):
                    value, place, mask = _values(nll, log_ratio, row, start, batch, samples, COLUMNS, COMPUTE)
                    gradient = scale[:, None] * tl.exp(origin[:, None] - value)
                    store(grad_nll, place, gradient, mask)
                    store(grad_log_ratio, place, gradient, mask)
    if loss is not None:
        last_block_reduction(
            tl.sum(total, axis=0), loss, partials, semaphores, weight_tensor, weight, 0, program, chunks
        )


def _launch_config(nll: Tensor, per_row: bool) -> LaunchConfig:
    """Split the rows into blocks, shared by programs. A loss for each row has one program for each block."""
    batch, samples = nll.shape
    vector = 8 if nll.element_size() == 2 else 4
    span = min(triton.next_power_of_2(samples), _TILE)
    meta = {
        "WHOLE": samples <= span,
        "ROWS": _TILE // span,
        "COLUMNS": span,
        "VECTOR": vector,
        "ALIGNED": samples % vector == 0,
        "INDEX": tl.int32 if nll.numel() < 2**30 else tl.int64,
        "COMPUTE": tl.float64 if nll.dtype == float64 else tl.float32,
        "num_warps": _WARPS,
        "num_stages": 1,
    }
    programs = triton.cdiv(batch, _TILE // span)
    return LaunchConfig(1, nll.numel(), max(1, programs if per_row else min(programs, _MAX_PROGRAMS)), samples, 0, meta)


def importance_weighted_nll(
    nll: Tensor, log_ratio: Tensor, reduction: int, weight: float, weight_tensor: Tensor | None, with_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    per_row = reduction == NONE
    config = _launch_config(nll, per_row)
    total = summation(nll, reduction, config._replace(chunks=1) if per_row else config)
    grad_nll, grad_log_ratio = (empty_gradient(nll, reduction, with_grad) for _ in range(2))
    if not config.empty:
        weight = folded_weight(weight, reduction, nll.shape[0])
        gradients = (grad_nll, grad_log_ratio) if grad_nll.numel() else (None, None)
        with on_device_of(nll):
            _bound[config.chunks,](
                nll, log_ratio, total.loss if per_row else None, *(_NO_SUM if per_row else total), *gradients, None,
                weight_tensor, *nll.shape, config.chunks, 0, math.log(nll.shape[1]), weight, **config.meta,
            )  # fmt: skip
    return total.loss, grad_nll, grad_log_ratio


def importance_weighted_nll_backward(
    grad_output: Tensor,
    nll: Tensor,
    log_ratio: Tensor,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> tuple[Tensor, Tensor]:
    config = _launch_config(nll, True)
    grad_nll, grad_log_ratio = nll.new_empty(nll.shape), nll.new_empty(nll.shape)
    if not config.empty:
        weight = folded_weight(weight, reduction, nll.shape[0])
        with on_device_of(nll):
            _bound[config.chunks,](
                nll, log_ratio, None, *_NO_SUM, grad_nll, grad_log_ratio, grad_output, weight_tensor, *nll.shape,
                config.chunks, int(reduction == NONE), math.log(nll.shape[1]), weight, **config.meta,
            )  # fmt: skip
    return grad_nll, grad_log_ratio
