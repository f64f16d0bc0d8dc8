"""Half squared error over a fixed variance: one pass reads mean and target and writes the gradient."""

import math

import triton
import triton.language as tl
from torch import Tensor

from ._launch import NONE, empty_gradient, finish, folded_weight, loss_and_partials, on_device_of, plan, scalar
from ._math import pixel
from ._tile import multiple, span


@triton.jit(do_not_specialize=["length", "chunks"])
def _forward(
    mean,  # (rows, length)
    target,  # (rows, length) uint8 or floating
    gradient,  # (rows, length) or None
    partials,  # (rows, chunks)
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    weight: tl.float64,
    half_precision: tl.float64,
    constant: tl.float64,
    FINAL: tl.constexpr,
    TILE: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1).to(INDEX)
    length, step = multiple(length, INDEX, VECTOR, ALIGNED), tl.cast(chunks, INDEX) * (TILE * VECTOR)
    base = row * length
    factor = scalar(weight, weight_tensor, COMPUTE)
    half_precision, constant = scalar(half_precision, None, COMPUTE), scalar(constant, None, COMPUTE)
    slope = factor * (2.0 * half_precision)
    total = tl.zeros((TILE, VECTOR), COMPUTE)
    for start in range(chunk * (TILE * VECTOR), length, step):
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        value = tl.load(mean + base + place, mask=mask, other=0.0).to(COMPUTE)
        error = value - pixel(tl.load(target + base + place, mask=mask, other=0), COMPUTE)
        total += tl.where(mask, error * error * half_precision + constant, 0.0)
        if gradient is not None:
            tl.store(gradient + base + place, (slope * error).to(gradient.dtype.element_ty), mask=mask)
    partial = tl.sum(tl.sum(total, axis=1), axis=0)
    if FINAL:
        partial *= factor
    tl.store(partials + row * chunks + chunk, partial)


@triton.jit(do_not_specialize=["length", "chunks"])
def _backward(
    grad_output,  # (rows,)
    mean,  # (rows, length)
    target,  # (rows, length) uint8 or floating
    gradient,  # (rows, length)
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    weight: tl.float64,
    half_precision: tl.float64,
    TILE: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1).to(INDEX)
    length, step = multiple(length, INDEX, VECTOR, ALIGNED), tl.cast(chunks, INDEX) * (TILE * VECTOR)
    base = row * length
    slope = scalar(weight, weight_tensor, COMPUTE) * tl.load(grad_output + row).to(COMPUTE)
    slope *= 2.0 * scalar(half_precision, None, COMPUTE)
    for start in range(chunk * (TILE * VECTOR), length, step):
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        value = tl.load(mean + base + place, mask=mask, other=0.0).to(COMPUTE)
        error = value - pixel(tl.load(target + base + place, mask=mask, other=0), COMPUTE)
        tl.store(gradient + base + place, (slope * error).to(gradient.dtype.element_ty), mask=mask)


def gaussian_nll(
    mean: Tensor,
    target: Tensor,
    variance: float,
    full: bool,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
    with_grad: bool,
) -> tuple[Tensor, Tensor]:
    cut = plan(mean, reduction == NONE)
    loss, partials = loss_and_partials(mean, reduction, cut)
    gradient = empty_gradient(mean, reduction, with_grad)
    if not cut.empty:
        weight = folded_weight(weight, reduction, mean.shape[0])
        constant = 0.5 * math.log(2 * math.pi * variance) if full else 0.0
        with on_device_of(mean):
            _forward[cut.grid](
                mean, target, gradient if gradient.numel() else None, partials, weight_tensor,
                cut.length, cut.chunks, weight, 0.5 / variance, constant, FINAL=cut.chunks == 1, **cut.meta,
            )  # fmt: skip
            finish(partials, loss, weight_tensor, weight, cut)
    return loss, gradient


def gaussian_nll_backward(
    grad_output: Tensor,
    mean: Tensor,
    target: Tensor,
    variance: float,
    full: bool,  # noqa: ARG001  (the constant has no gradient; the argument is the schema's)
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> Tensor:
    cut = plan(mean, reduction == NONE)
    gradient = mean.new_empty(mean.shape)
    if not cut.empty:
        weight = folded_weight(weight, reduction, mean.shape[0])
        with on_device_of(mean):
            _backward[cut.grid](
                grad_output, mean, target, gradient, weight_tensor,
                cut.length, cut.chunks, weight, 0.5 / variance, **cut.meta,
            )  # fmt: skip
    return gradient
