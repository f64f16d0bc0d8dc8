"""The loop of every pixel likelihood: one pass reads one or two predictions and the target and writes the gradients.

A likelihood is its terms, a jit function of elements: the loss and its derivatives in the predictions.

    terms(prediction, x, p, q) -> (loss, slope)
    terms(first, second, x, p, q) -> (loss, first_slope, second_slope)

``x`` is the target as a number, all are of the type computed in, and p and q are two numbers of the call (a variance,
say), 0 where the likelihood has none. A pointer that is None leaves its part of a kernel out. A launcher passes on the
end of its schema as ``*reduce``: reduction, weight, weight_tensor, and with_grad in a forward.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ._launch import NONE, empty_gradient, folded_weight, on_device_of, plan, scalar, settle, summation
from ._math import pixel
from ._noise import binarized
from ._tile import multiple, span


@triton.jit
def _target(target, state, stream, first, place, mask, TILE: tl.constexpr, VECTOR: tl.constexpr, dtype: tl.constexpr):
    x = tl.load(target + place, mask=mask, other=0)
    if state is not None:
        x = binarized(x, state, stream, first, TILE, VECTOR)
    return pixel(x, dtype)


@triton.jit(do_not_specialize=["length", "chunks", "first", "stream"])
def _forward(
    prediction,  # (rows, length)
    second,  # (rows, length) or None
    target,  # (rows, length) uint8 or floating
    gradient,  # (rows, length) or None
    second_gradient,  # (rows, length) or None
    loss_sum,  # (rows,)
    partials,  # (rows, chunks) or None
    tickets,  # (rows,) or None
    state,  # (2,) int64 [seed, step], or None: the target as it is
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    first: tl.int64,
    stream: tl.int64,
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
    factor = scalar(weight, weight_tensor, COMPUTE)
    p, q = scalar(p, None, COMPUTE), scalar(q, None, COMPUTE)
    total = tl.zeros((TILE, VECTOR), COMPUTE)
    # Quads cross rows, so a segment may start inside one; ALIGNED ones never do.
    lead = 0 if ALIGNED or state is None else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + lead, step):
        start = tile - lead
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        value = tl.load(prediction + base + place, mask=mask, other=0.0).to(COMPUTE)
        x = _target(target + base, state, stream, first + base + start, place, mask, TILE, VECTOR, COMPUTE)
        if second is None:
            loss, slope = TERMS(value, x, p, q)
        else:
            other = tl.load(second + base + place, mask=mask, other=0.0).to(COMPUTE)
            loss, slope, second_slope = TERMS(value, other, x, p, q)
            if second_gradient is not None:
                second_slope = (factor * second_slope).to(second_gradient.dtype.element_ty)
                tl.store(second_gradient + base + place, second_slope, mask=mask)
        total += tl.where(mask, loss, 0.0)
        if gradient is not None:
            tl.store(gradient + base + place, (factor * slope).to(gradient.dtype.element_ty), mask=mask)
    partial = tl.sum(tl.sum(total, axis=1), axis=0)
    settle(partial, loss_sum, partials, tickets, weight_tensor, weight, row, chunk, chunks)


@triton.jit(do_not_specialize=["length", "chunks", "first", "stream"])
def _backward(
    grad_output,  # (rows,)
    prediction,  # (rows, length)
    second,  # (rows, length) or None
    target,  # (rows, length) uint8 or floating
    gradient,  # (rows, length)
    second_gradient,  # (rows, length) or None
    state,  # (2,) int64 [seed, step], or None: the target as it is
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    first: tl.int64,
    stream: tl.int64,
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
    lead = 0 if ALIGNED or state is None else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + lead, step):
        start = tile - lead
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        value = tl.load(prediction + base + place, mask=mask, other=0.0).to(COMPUTE)
        x = _target(target + base, state, stream, first + base + start, place, mask, TILE, VECTOR, COMPUTE)
        if second is None:
            _, slope = TERMS(value, x, p, q)
        else:
            other = tl.load(second + base + place, mask=mask, other=0.0).to(COMPUTE)
            _, slope, second_slope = TERMS(value, other, x, p, q)
            second_slope = (factor * second_slope).to(second_gradient.dtype.element_ty)
            tl.store(second_gradient + base + place, second_slope, mask=mask)
        tl.store(gradient + base + place, (factor * slope).to(gradient.dtype.element_ty), mask=mask)


class Key(NamedTuple):
    """The key by which a uint8 target is binarized, as the schema has it."""

    state: Tensor | None
    row_offset: int
    stream: int


_NO_KEY = Key(None, 0, 0)


class Likelihood(NamedTuple):
    """The terms and their two numbers; the key of the target's binarization; the most vectors a program."""

    terms: triton.JITFunction
    p: float = 0.0
    q: float = 0.0
    key: Key = _NO_KEY
    max_tile: int = 512


def forward(
    likelihood: Likelihood,
    predictions: tuple[Tensor, ...],
    target: Tensor,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
    with_grad: bool,
) -> tuple[Tensor, ...]:
    """The loss and the gradient of each prediction (empty where the schema says so)."""
    terms, p, q, key, max_tile = likelihood
    like, second = predictions[0], predictions[1] if len(predictions) > 1 else None
    cut = plan(like, reduction == NONE, row_offset=key.row_offset, max_tile=max_tile)
    total = summation(like, reduction, cut)
    gradients = tuple(empty_gradient(prediction, reduction, with_grad) for prediction in predictions)
    if not cut.empty:
        written = [gradient if gradient.numel() else None for gradient in gradients]
        weight = folded_weight(weight, reduction, like.shape[0])
        with on_device_of(like):
            _forward[cut.grid](
                like, second, target, written[0], written[-1] if len(written) > 1 else None, *total, key.state,
                weight_tensor, cut.length, cut.chunks, cut.first, key.stream, weight, p, q,
                TERMS=terms, **cut.meta,
            )  # fmt: skip
    return (total.loss, *gradients)


def backward(
    likelihood: Likelihood,
    grad_output: Tensor,
    predictions: tuple[Tensor, ...],
    target: Tensor,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> tuple[Tensor, ...]:
    """The gradient of each prediction."""
    terms, p, q, key, max_tile = likelihood
    like, second = predictions[0], predictions[1] if len(predictions) > 1 else None
    cut = plan(like, reduction == NONE, row_offset=key.row_offset, max_tile=max_tile)
    gradients = tuple(prediction.new_empty(prediction.shape) for prediction in predictions)
    if not cut.empty:
        weight = folded_weight(weight, reduction, like.shape[0])
        with on_device_of(like):
            _backward[cut.grid](
                grad_output, like, second, target, gradients[0], gradients[-1] if second is not None else None,
                key.state, weight_tensor, cut.length, cut.chunks, cut.first, key.stream, weight, p, q,
                TERMS=terms, **cut.meta,
            )  # fmt: skip
    return gradients
