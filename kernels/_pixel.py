"""The loop of every pixel likelihood: one pass reads the prediction and the target and writes the gradient.

A likelihood is its terms, a jit function of elements ``terms(prediction, x, p, q) -> (loss, slope)``: the loss and its
derivative in the prediction. ``x`` is the target as a number, all are of the type computed in, and p and q are two
numbers of the call (a variance, say), 0 where the likelihood has none.
"""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import NONE, empty_gradient, finish, folded_weight, loss_and_partials, on_device_of, plan, scalar
from ._math import pixel
from ._tile import multiple, span


@triton.jit(do_not_specialize=["length", "chunks"])
def _forward(
    prediction,  # (rows, length)
    target,  # (rows, length) uint8 or floating
    gradient,  # (rows, length) or None
    partials,  # (rows, chunks)
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    weight: tl.float64,
    p: tl.float64,
    q: tl.float64,
    TERMS: tl.constexpr,
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
    p, q = scalar(p, None, COMPUTE), scalar(q, None, COMPUTE)
    total = tl.zeros((TILE, VECTOR), COMPUTE)
    for start in range(chunk * (TILE * VECTOR), length, step):
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        value = tl.load(prediction + base + place, mask=mask, other=0.0).to(COMPUTE)
        x = pixel(tl.load(target + base + place, mask=mask, other=0), COMPUTE)
        loss, slope = TERMS(value, x, p, q)
        total += tl.where(mask, loss, 0.0)
        if gradient is not None:
            tl.store(gradient + base + place, (factor * slope).to(gradient.dtype.element_ty), mask=mask)
    partial = tl.sum(tl.sum(total, axis=1), axis=0)
    if FINAL:
        partial *= factor
    tl.store(partials + row * chunks + chunk, partial)


@triton.jit(do_not_specialize=["length", "chunks"])
def _backward(
    grad_output,  # (rows,)
    prediction,  # (rows, length)
    target,  # (rows, length) uint8 or floating
    gradient,  # (rows, length)
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    weight: tl.float64,
    p: tl.float64,
    q: tl.float64,
    TERMS: tl.constexpr,
    TILE: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1).to(INDEX)
    length, step = multiple(length, INDEX, VECTOR, ALIGNED), tl.cast(chunks, INDEX) * (TILE * VECTOR)
    base = row * length
    factor = scalar(weight, weight_tensor, COMPUTE) * tl.load(grad_output + row).to(COMPUTE)
    p, q = scalar(p, None, COMPUTE), scalar(q, None, COMPUTE)
    for start in range(chunk * (TILE * VECTOR), length, step):
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        value = tl.load(prediction + base + place, mask=mask, other=0.0).to(COMPUTE)
        x = pixel(tl.load(target + base + place, mask=mask, other=0), COMPUTE)
        _, slope = TERMS(value, x, p, q)
        tl.store(gradient + base + place, (factor * slope).to(gradient.dtype.element_ty), mask=mask)


def forward(
    terms: triton.JITFunction,
    prediction: Tensor,
    target: Tensor,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
    with_grad: bool,
    p: float = 0.0,
    q: float = 0.0,
) -> tuple[Tensor, Tensor]:
    cut = plan(prediction, reduction == NONE)
    loss, partials = loss_and_partials(prediction, reduction, cut)
    gradient = empty_gradient(prediction, reduction, with_grad)
    if not cut.empty:
        weight = folded_weight(weight, reduction, prediction.shape[0])
        with on_device_of(prediction):
            _forward[cut.grid](
                prediction, target, gradient if gradient.numel() else None, partials, weight_tensor,
                cut.length, cut.chunks, weight, p, q, TERMS=terms, FINAL=cut.chunks == 1, **cut.meta,
            )  # fmt: skip
            finish(partials, loss, weight_tensor, weight, cut)
    return loss, gradient


def backward(
    terms: triton.JITFunction,
    grad_output: Tensor,
    prediction: Tensor,
    target: Tensor,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
    p: float = 0.0,
    q: float = 0.0,
) -> Tensor:
    cut = plan(prediction, reduction == NONE)
    gradient = prediction.new_empty(prediction.shape)
    if not cut.empty:
        weight = folded_weight(weight, reduction, prediction.shape[0])
        with on_device_of(prediction):
            _backward[cut.grid](
                grad_output, prediction, target, gradient, weight_tensor,
                cut.length, cut.chunks, weight, p, q, TERMS=terms, **cut.meta,
            )  # fmt: skip
    return gradient
