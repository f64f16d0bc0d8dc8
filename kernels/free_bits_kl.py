"""The KL of groups of columns, summed over the batch, with an allowance for each group.

A tensor (B, D) is split into blocks of COLUMNS columns, and each block among ``chunks`` programs: program k takes the
tiles of ROWS rows k, k + chunks, ... A second kernel adds their partials in order, and the columns of each group; its
last program adds the groups. The split depends on the shape alone: the same call gives the same bits.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import SUM, LaunchConfig, last_block_reduction, on_device_of, row_stride, scalar, summation
from ._math import exp_expm1
from ._tile import multiple_of_vector, store

_INTEGERS = ["batch", "chunks", "event", "inner", "stride_mu", "stride_logvar"]

# Reasoned, NOT YET MEASURED ON A GPU: 8 elements a thread of 4 warps, or 2 vectors in fp32; up to 1024 programs, 8 of
# them on each SM of an H100, and as many partials of a column.
_TILE = 1024
_MAX_COLUMNS = 256
_PROGRAMS = 1024
_INT32_REACH = 2**30  # elements up to which offsets are int32, with headroom for the last step of a loop over tiles


@triton.jit(do_not_specialize=_INTEGERS)
def _columns(
    grad_output,  # () or None: the sums, not the gradients
    sums,  # (groups,) or None
    weight_tensor,  # () or None
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    partials,  # (chunks, D) or None
    grad_mu,  # (B, D) or None
    grad_logvar,  # (B, D) or None
    allowance: tl.float64,
    weight: tl.float64,
    batch: tl.int64,
    chunks: tl.int64,
    event: tl.int64,
    inner: tl.int64,  # columns of a group
    stride_mu: tl.int64,
    stride_logvar: tl.int64,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    block = tl.program_id(0).to(INDEX)
    chunk = tl.program_id(1).to(INDEX)
    event = multiple_of_vector(event, INDEX, VECTOR, ALIGNED)
    stride_mu = multiple_of_vector(stride_mu, INDEX, VECTOR, ALIGNED)
    stride_logvar = multiple_of_vector(stride_logvar, INDEX, VECTOR, ALIGNED)
    batch = tl.cast(batch, INDEX)
    step = tl.cast(chunks, INDEX) * ROWS
    column = (block * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    inside = column < event
    if grad_output is not None:
        factor = (tl.load(grad_output).to(tl.float64) * scalar(weight, weight_tensor, tl.float64)).to(COMPUTE)
        spent = tl.load(sums + column // tl.cast(inner, INDEX), mask=inside, other=0.0).to(tl.float64)
        factor = tl.where(spent <= allowance, 0.0, factor)  # a NaN is not <=, and has its gradient
    total = tl.zeros((ROWS, COLUMNS), COMPUTE)
    for start in range(chunk * ROWS, batch, step):
        row = start + tl.arange(0, ROWS)[:, None]
        mask = (row < batch) & inside
        mean = tl.load(mu + row * stride_mu + column, mask=mask, other=0.0).to(COMPUTE)
        log = tl.load(logvar + row * stride_logvar + column, mask=mask, other=0.0).to(COMPUTE)
        _, half = exp_expm1(0.5 * log)
        variance_less_one = half * (half + 2.0)
        if grad_output is None:
            total += tl.where(mask, 0.5 * (mean * mean + (variance_less_one - log)), 0.0)
        else:
            to_mu = factor * mean
            to_logvar = factor * (0.5 * variance_less_one)
            store(grad_mu + row * event, column, to_mu, mask)
            store(grad_logvar + row * event, column, to_logvar, mask)
    if grad_output is None:
        tl.store(partials + chunk * event + column, tl.sum(total, axis=0)[None, :], mask=inside)


@triton.jit(do_not_specialize=["chunks", "event", "inner"])
def _groups(
    parts,  # (chunks, D)
    sums,  # (groups,)
    loss,  # ()
    partials,  # (groups,) or None
    semaphores,  # (1,) or None
    weight_tensor,  # () or None
    allowance: tl.float64,
    weight: tl.float64,
    chunks: tl.int64,
    event: tl.int64,
    inner: tl.int64,
    SPAN: tl.constexpr,
):
    group = tl.program_id(0).to(tl.int64)
    total = tl.zeros((SPAN,), tl.float64)
    for start in range(tl.full((), 0, tl.int64), chunks * inner, SPAN):
        k = start + tl.arange(0, SPAN)
        at = k // inner * event + group * inner + k % inner
        total += tl.load(parts + at, mask=k < chunks * inner, other=0.0).to(tl.float64)
    spent = tl.sum(total, axis=0)
    tl.store(sums + group, spent)
    charged = tl.where(spent < allowance, allowance, spent)  # a NaN is not less
    last_block_reduction(charged, loss, partials, semaphores, weight_tensor, weight, 0, group, tl.num_programs(0))


def _launch(
    grad_output: Tensor | None,
    sums: Tensor | None,
    weight_tensor: Tensor | None,
    mu: Tensor,
    logvar: Tensor,
    partials: Tensor | None,
    grad_mu: Tensor | None,
    grad_logvar: Tensor | None,
    allowance: float,
    weight: float,
    groups: int,
) -> None:
    batch = mu.shape[0]
    event = math.prod(mu.shape[1:])
    strides = row_stride(mu), row_stride(logvar)
    vector = 8 if mu.dtype in (torch.bfloat16, torch.float16) else 4
    columns = _columns_of(event)
    meta: dict[str, Any] = {
        "ROWS": _TILE // columns,
        "COLUMNS": columns,
        "VECTOR": vector,
        "ALIGNED": all(width % vector == 0 for width in (event, *strides)),
        "INDEX": tl.int32 if batch * max(event, *map(abs, strides)) < _INT32_REACH else tl.int64,
        "COMPUTE": tl.float64 if mu.dtype == torch.float64 else tl.float32,
        "num_warps": 4,
        "num_stages": 1,
    }
    chunks = _chunks_of(batch, event)
    _columns[triton.cdiv(event, columns), chunks](
        grad_output, sums, weight_tensor, mu, logvar, partials, grad_mu, grad_logvar, allowance, weight,
        batch, chunks, event, event // groups, *strides, **meta,
    )  # fmt: skip


def _columns_of(event: int) -> int:
    return int(min(triton.next_power_of_2(event), _MAX_COLUMNS))


def _chunks_of(batch: int, event: int) -> int:
    columns = _columns_of(event)
    blocks = triton.cdiv(event, columns)
    return int(min(triton.cdiv(batch, _TILE // columns), max(1, _PROGRAMS // blocks)))


def _charge(mu: Tensor, threshold: float, reduction: int, weight: float) -> tuple[float, float]:
    """The allowance of a group's sum over the batch, and the factor of the loss."""
    batch = mu.shape[0]
    return threshold * batch, (weight if reduction == SUM else weight / batch if batch else math.nan)


def free_bits_kl(
    mu: Tensor,
    logvar: Tensor,
    groups: int,
    threshold: float,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> tuple[Tensor, Tensor]:
    event = math.prod(mu.shape[1:])
    allowance, factor = _charge(mu, threshold, reduction, weight)
    config = LaunchConfig(rows=1, length=groups, chunks=groups, event=event, first=0, meta={})
    loss, partials, semaphores = summation(mu, SUM, config)
    if mu.numel() == 0:
        sums = mu.new_zeros(groups, dtype=loss.dtype)
        total = sums.clamp_min(allowance).sum() * factor
        return (total if weight_tensor is None else (total * weight_tensor).to(sums.dtype)), sums
    chunks = _chunks_of(mu.shape[0], event)
    parts, sums = mu.new_empty((chunks, event), dtype=loss.dtype), mu.new_empty(groups, dtype=loss.dtype)
    with on_device_of(mu):
        _launch(None, None, None, mu, logvar, parts, None, None, 0.0, 0.0, groups)
        inner = event // groups
        span = min(1024, max(32, triton.next_power_of_2(chunks * inner)))
        _groups[(groups,)](
            parts, sums, loss, partials, semaphores, weight_tensor, allowance, factor,
            chunks, event, inner, SPAN=span, num_warps=min(4, span // 32),
        )  # fmt: skip
    return loss, sums


def free_bits_kl_backward(
    grad_output: Tensor,
    sums: Tensor,
    mu: Tensor,
    logvar: Tensor,
    groups: int,
    threshold: float,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> tuple[Tensor, Tensor]:
    grad_mu, grad_logvar = mu.new_empty(mu.shape), mu.new_empty(mu.shape)
    if mu.numel():
        charge = _charge(mu, threshold, reduction, weight)
        with on_device_of(mu):
            _launch(grad_output, sums, weight_tensor, mu, logvar, None, grad_mu, grad_logvar, *charge, groups)
    return grad_mu, grad_logvar
