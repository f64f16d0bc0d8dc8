"""The loop of every pixel likelihood: one pass reads one or two predictions and the target and writes the gradients.

A likelihood is its terms, a jit function of elements: the loss and its derivatives in the predictions.

    terms(prediction, x, constant0, constant1) -> (loss, slope)
    terms(first, second, x, constant0, constant1) -> (loss, first_slope, second_slope)

``x`` is the target as a number, and all are of the type of the computation. The constants are two numbers that the
launcher passes (a variance, say), 0 if the likelihood has none. A pointer that is None leaves its part of a kernel out.
A launcher passes on the end of its schema as ``*reduce``: reduction, weight, weight_tensor, and in a forward with_grad.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ._launch import (
    NONE,
    empty_gradient,
    folded_weight,
    last_block_reduction,
    launch_config,
    on_device_of,
    row_factor,
    scalar,
    summation,
)
from ._math import pixel
from ._noise import NO_NOISE, Noise, binarized
from ._tile import program_segment, span, store


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
    semaphores,  # (rows,) or None
    state,  # (2,) int64 [seed, step], or None: the target as it is
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    first: tl.int64,
    stream: tl.int64,
    weight: tl.float64,
    constant0: tl.float64,
    constant1: tl.float64,
    TERMS: tl.constexpr,
    TILE: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    row, chunk, length, step = program_segment(length, chunks, TILE, VECTOR, ALIGNED, INDEX)
    base = row * length
    factor = scalar(weight, weight_tensor, COMPUTE)
    constant0, constant1 = scalar(constant0, None, COMPUTE), scalar(constant1, None, COMPUTE)
    total = tl.zeros((TILE, VECTOR), COMPUTE)
    # Quads cross rows, so a segment may start inside one; ALIGNED ones never do.
    quad_offset = 0 if ALIGNED or state is None else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + quad_offset, step):
        start = tile - quad_offset
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        value = tl.load(prediction + base + place, mask=mask, other=0.0).to(COMPUTE)
        x = _target(target + base, state, stream, first + base + start, place, mask, TILE, VECTOR, COMPUTE)
        if second is None:
            loss, slope = TERMS(value, x, constant0, constant1)
        else:
            other = tl.load(second + base + place, mask=mask, other=0.0).to(COMPUTE)
            loss, slope, second_slope = TERMS(value, other, x, constant0, constant1)
            if second_gradient is not None:
                store(second_gradient + base, place, factor * second_slope, mask)
        total += tl.where(mask, loss, 0.0)
        if gradient is not None:
            store(gradient + base, place, factor * slope, mask)
    partial = tl.sum(tl.sum(total, axis=1), axis=0)
    last_block_reduction(partial, loss_sum, partials, semaphores, weight_tensor, weight, row, chunk, chunks)


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
    constant0: tl.float64,
    constant1: tl.float64,
    TERMS: tl.constexpr,
    TILE: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    row, chunk, length, step = program_segment(length, chunks, TILE, VECTOR, ALIGNED, INDEX)
    base = row * length
    factor = row_factor(grad_output, row, weight, weight_tensor, COMPUTE)
    constant0, constant1 = scalar(constant0, None, COMPUTE), scalar(constant1, None, COMPUTE)
    quad_offset = 0 if ALIGNED or state is None else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + quad_offset, step):
        start = tile - quad_offset
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        value = tl.load(prediction + base + place, mask=mask, other=0.0).to(COMPUTE)
        x = _target(target + base, state, stream, first + base + start, place, mask, TILE, VECTOR, COMPUTE)
        if second is None:
            _, slope = TERMS(value, x, constant0, constant1)
        else:
            other = tl.load(second + base + place, mask=mask, other=0.0).to(COMPUTE)
            _, slope, second_slope = TERMS(value, other, x, constant0, constant1)
            store(second_gradient + base, place, factor * second_slope, mask)
        store(gradient + base, place, factor * slope, mask)


class Likelihood(NamedTuple):
    """The terms and their two constants; the noise that binarizes the target; the most vectors a program."""

    terms: triton.JITFunction
    constant0: float = 0.0
    constant1: float = 0.0
    noise: Noise = NO_NOISE
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
    terms, *constants, noise, max_tile = likelihood
    like = predictions[0]
    second = predictions[1] if len(predictions) > 1 else None
    config = launch_config(like, reduction == NONE, row_offset=noise.row_offset, max_tile=max_tile)
    total = summation(like, reduction, config)
    gradients = tuple(empty_gradient(prediction, reduction, with_grad) for prediction in predictions)
    if not config.empty:
        written = [gradient if gradient.numel() else None for gradient in gradients]
        weight = folded_weight(weight, reduction, like.shape[0])
        with on_device_of(like):
            _forward[config.grid](
                like, second, target, written[0], written[-1] if len(written) > 1 else None, *total, noise.state,
                weight_tensor, config.length, config.chunks, config.first, noise.stream, weight, *constants,
                TERMS=terms, **config.meta,
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
    terms, *constants, noise, max_tile = likelihood
    like = predictions[0]
    second = predictions[1] if len(predictions) > 1 else None
    config = launch_config(like, reduction == NONE, row_offset=noise.row_offset, max_tile=max_tile)
    gradients = tuple(prediction.new_empty(prediction.shape) for prediction in predictions)
    if not config.empty:
        weight = folded_weight(weight, reduction, like.shape[0])
        with on_device_of(like):
            _backward[config.grid](
                grad_output, like, second, target, gradients[0], gradients[-1] if second is not None else None,
                noise.state, weight_tensor, config.length, config.chunks, config.first, noise.stream,
                weight, *constants, TERMS=terms, **config.meta,
            )  # fmt: skip
    return gradients
