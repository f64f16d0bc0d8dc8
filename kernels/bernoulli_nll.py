"""Binary cross-entropy on logits: one pass reads logits and target and writes the gradient (9 bytes in fp32)."""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import NONE, empty_gradient, finish, folded_weight, loss_and_partials, on_device_of, plan, scalar
from ._math import log1p_unit, pixel
from ._tile import multiple, span


@triton.jit
def _terms(logit, x):
    """The loss ``max(l, 0) - l*x + log1p(exp(-|l|))`` and its slope ``sigmoid(l) - x``."""
    decay = tl.exp(-tl.abs(logit))
    reciprocal = 1.0 / (1.0 + decay)
    # A NaN logit fails both comparisons, and is kept by l*x and by decay.
    loss = tl.where(logit > 0.0, logit, 0.0) - logit * x + log1p_unit(decay)
    return loss, tl.where(logit >= 0.0, reciprocal, decay * reciprocal) - x


@triton.jit(do_not_specialize=["length", "chunks"])
def _forward(
    logits,  # (rows, length)
    target,  # (rows, length) uint8 or floating
    gradient,  # (rows, length) or None
    partials,  # (rows, chunks)
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    weight: tl.float64,
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
    total = tl.zeros((TILE, VECTOR), COMPUTE)
    for start in range(chunk * (TILE * VECTOR), length, step):
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        logit = tl.load(logits + base + place, mask=mask, other=0.0).to(COMPUTE)
        x = pixel(tl.load(target + base + place, mask=mask, other=0), COMPUTE)
        loss, slope = _terms(logit, x)
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
    logits,  # (rows, length)
    target,  # (rows, length) uint8 or floating
    gradient,  # (rows, length)
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    weight: tl.float64,
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
    for start in range(chunk * (TILE * VECTOR), length, step):
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        logit = tl.load(logits + base + place, mask=mask, other=0.0).to(COMPUTE)
        x = pixel(tl.load(target + base + place, mask=mask, other=0), COMPUTE)
        _, slope = _terms(logit, x)
        tl.store(gradient + base + place, (factor * slope).to(gradient.dtype.element_ty), mask=mask)


def bernoulli_nll(
    logits: Tensor, target: Tensor, reduction: int, weight: float, weight_tensor: Tensor | None, with_grad: bool
) -> tuple[Tensor, Tensor]:
    cut = plan(logits, reduction == NONE)
    loss, partials = loss_and_partials(logits, reduction, cut)
    gradient = empty_gradient(logits, reduction, with_grad)
    if not cut.empty:
        weight = folded_weight(weight, reduction, logits.shape[0])
        with on_device_of(logits):
            _forward[cut.grid](
                logits, target, gradient if gradient.numel() else None, partials, weight_tensor,
                cut.length, cut.chunks, weight, FINAL=cut.chunks == 1, **cut.meta,
            )  # fmt: skip
            finish(partials, loss, weight_tensor, weight, cut)
    return loss, gradient


def bernoulli_nll_backward(
    grad_output: Tensor, logits: Tensor, target: Tensor, reduction: int, weight: float, weight_tensor: Tensor | None
) -> Tensor:
    cut = plan(logits, reduction == NONE)
    gradient = logits.new_empty(logits.shape)
    if not cut.empty:
        weight = folded_weight(weight, reduction, logits.shape[0])
        with on_device_of(logits):
            _backward[cut.grid](
                grad_output, logits, target, gradient, weight_tensor, cut.length, cut.chunks, weight, **cut.meta
            )
    return gradient
