"""Cross-entropy of class logits. Memory is read once: all classes of a tile of pixels stay in the cache."""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import empty_gradient, folded_weight, last_block_reduction, on_device_of, row_factor, summation
from ._planes import locate, plane_launch_config
from ._tile import multiple_of_vector, program_segment, span, store


@triton.jit
def _classes(logits, at, mask, first, inner, classes, CLASSES: tl.constexpr, COMPUTE: tl.constexpr):
    """A tile of classes from ``first``: their numbers, places, mask and logits."""
    k = first + tl.arange(0, CLASSES)[:, None, None]
    place = at[None, :, :] + k * inner
    there = (k < classes) & mask[None, :, :]
    logit = tl.load(logits + place, mask=there, other=float("-inf")).to(COMPUTE)
    return k, place, there, tl.where(mask[None, :, :], logit, 0.0)


@triton.jit(do_not_specialize=["length", "chunks", "inner", "planes"])
def _nll(
    grad_output,  # (rows,) or None: not a backward
    logits,  # (B, planes, inner)
    target,  # (B, inner) uint8 or int64
    gradient,  # (B, planes, inner) or None
    loss_sum,  # (rows,) or None: the gradient alone
    partials,  # (rows, chunks) or None
    semaphores,  # (rows,) or None
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    inner: tl.int64,
    planes: tl.int64,
    weight: tl.float64,
    CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    DENSE: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    row, chunk, length, step = program_segment(length, chunks, PIXELS, VECTOR, ALIGNED, INDEX)
    inner = multiple_of_vector(inner, INDEX, VECTOR, ALIGNED)
    planes = tl.cast(planes, INDEX)
    factor = row_factor(grad_output, row, weight, weight_tensor, COMPUTE)
    total = tl.zeros((PIXELS, VECTOR), COMPUTE)
    for start in range(chunk * (PIXELS * VECTOR), length, step):
        at, _ = locate(start, row, length, inner, planes, PIXELS, VECTOR, ALIGNED, DENSE, INDEX)
        place, mask = span(start, length, VECTOR, PIXELS, ALIGNED)
        index = tl.load(target + row * length + place, mask=mask, other=0).to(tl.int64)
        exists = (index >= 0) & (index < planes)
        index = tl.where(exists, index, -1).to(tl.int32)[None, :, :]
        highest = tl.full((CLASSES, PIXELS, VECTOR), float("-inf"), COMPUTE)
        for first in range(0, planes, CLASSES):
            logit = _classes(logits, at, mask, first, inner, planes, CLASSES, COMPUTE)[3]
            highest = tl.maximum(highest, logit)
        highest = tl.max(highest, axis=0)[None, :, :]
        # The target's own exponential stays out of the sum: a confident, right decoder keeps its digits.
        chosen = tl.zeros((CLASSES, PIXELS, VECTOR), COMPUTE)
        others = tl.zeros((CLASSES, PIXELS, VECTOR), COMPUTE)
        for first in range(0, planes, CLASSES):
            k, place_k, there, logit = _classes(logits, at, mask, first, inner, planes, CLASSES, COMPUTE)
            below = logit - highest
            chosen += tl.where(k == index, below, 0.0)
            others += tl.where((k == index) | (there == 0), 0.0, tl.exp(below))
        chosen = tl.where(exists, tl.sum(chosen, axis=0), float("nan"))
        others = tl.sum(others, axis=0)
        own = tl.exp(chosen)
        whole = own + others
        reciprocal = 1.0 / whole
        if loss_sum is not None:
            lost = (others - (whole - own)) * reciprocal  # by the rounding of the whole
            total += tl.where(mask, (tl.log(whole) + lost) - chosen, 0.0)
        if gradient is not None:
            share = (factor * reciprocal)[None, :, :]
            rest = -others[None, :, :]
            for first in range(0, planes, CLASSES):
                k, place_k, there, logit = _classes(logits, at, mask, first, inner, planes, CLASSES, COMPUTE)
                slope = share * tl.where(k == index, rest, tl.exp(logit - highest))
                store(gradient, place_k, slope, there)
    if loss_sum is not None:
        partial = tl.sum(tl.sum(total, axis=1), axis=0)
        last_block_reduction(partial, loss_sum, partials, semaphores, weight_tensor, weight, row, chunk, chunks)


# Elements a program, by bytes of one: reasoned, NOT YET MEASURED ON A GPU. With 4 warps each thread holds one
# 128-bit vector (two of fp64); with 8 it needs a third more registers, and spills (sm_80).
_ELEMENTS = {2: 1024, 4: 512, 8: 512}


def _tile(classes: int) -> int:
    """Classes a tile: 16 in flight are enough, and leave room for 8 vectors of pixels."""
    return min(triton.next_power_of_2(classes), 16)


def categorical_nll(
    logits: Tensor, target: Tensor, reduction: int, weight: float, weight_tensor: Tensor | None, with_grad: bool
) -> tuple[Tensor, Tensor]:
    tile = _tile(logits.shape[1])
    config, sizes = plane_launch_config(logits, reduction, tile, _ELEMENTS[logits.itemsize], warps=4)
    total = summation(logits, reduction, config)
    gradient = empty_gradient(logits, reduction, with_grad)
    if not config.empty:
        weight = folded_weight(weight, reduction, logits.shape[0])
        with on_device_of(logits):
            _nll[config.grid](
                None, logits, target, gradient if gradient.numel() else None, *total, weight_tensor,
                config.length, config.chunks, **sizes, weight=weight, CLASSES=tile, **config.meta,
            )  # fmt: skip
    return total.loss, gradient


def categorical_nll_backward(
    grad_output: Tensor, logits: Tensor, target: Tensor, reduction: int, weight: float, weight_tensor: Tensor | None
) -> Tensor:
    tile = _tile(logits.shape[1])
    config, sizes = plane_launch_config(logits, reduction, tile, _ELEMENTS[logits.itemsize], warps=4)
    gradient = logits.new_empty(logits.shape)
    if not config.empty:
        weight = folded_weight(weight, reduction, logits.shape[0])
        with on_device_of(logits):
            _nll[config.grid](
                grad_output, logits, target, gradient, None, None, None, weight_tensor,
                config.length, config.chunks, **sizes, weight=weight, CLASSES=tile, **config.meta,
            )  # fmt: skip
    return gradient
