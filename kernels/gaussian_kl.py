"""KL(N(mu, exp(logvar)) || N(0, I)): one pass reads mu and logvar and writes both gradients."""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import (
    NONE,
    empty_gradient,
    finish,
    folded_weight,
    loss_and_partials,
    on_device_of,
    plan,
    row_stride,
    scalar,
)
from ._math import exp_expm1
from ._tile import multiple, span, strided


@triton.jit
def divergence(mu, logvar):
    """KL, its slope in logvar (its slope in mu is mu), and the standard deviation, from one exponential."""
    deviation, less_one = exp_expm1(0.5 * logvar)
    # exp(logvar) - 1 as a product, where neither factor has lost its digits.
    variance_less_one = less_one * (less_one + 2.0)
    return 0.5 * (mu * mu + (variance_less_one - logvar)), 0.5 * variance_less_one, deviation


@triton.jit(do_not_specialize=["length", "chunks", "event", "stride_mu", "stride_logvar"])
def _forward(
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    grad_mu,  # (B, D) or None
    grad_logvar,  # (B, D) or None
    partials,  # (rows, chunks)
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    event: tl.int64,
    stride_mu: tl.int64,
    stride_logvar: tl.int64,
    weight: tl.float64,
    FINAL: tl.constexpr,
    TILE: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    DENSE: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1).to(INDEX)
    length, step = multiple(length, INDEX, VECTOR, ALIGNED), tl.cast(chunks, INDEX) * (TILE * VECTOR)
    event = multiple(event, INDEX, VECTOR, ALIGNED)
    stride_mu = multiple(stride_mu, INDEX, VECTOR, ALIGNED)
    stride_logvar = multiple(stride_logvar, INDEX, VECTOR, ALIGNED)
    base = row * length
    factor = scalar(weight, weight_tensor, COMPUTE)
    total = tl.zeros((TILE, VECTOR), COMPUTE)
    for start in range(chunk * (TILE * VECTOR), length, step):
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        at_mu = strided(start, event, stride_mu, VECTOR, TILE, ALIGNED, DENSE)
        mean = tl.load(mu + row * stride_mu + at_mu, mask=mask, other=0.0).to(COMPUTE)
        at_logvar = strided(start, event, stride_logvar, VECTOR, TILE, ALIGNED, DENSE)
        log = tl.load(logvar + row * stride_logvar + at_logvar, mask=mask, other=0.0).to(COMPUTE)
        loss, slope, _ = divergence(mean, log)
        total += tl.where(mask, loss, 0.0)
        if grad_mu is not None:
            tl.store(grad_mu + base + place, (factor * mean).to(grad_mu.dtype.element_ty), mask=mask)
            tl.store(grad_logvar + base + place, (factor * slope).to(grad_logvar.dtype.element_ty), mask=mask)
    partial = tl.sum(tl.sum(total, axis=1), axis=0)
    if FINAL:
        partial *= factor
    tl.store(partials + row * chunks + chunk, partial)


@triton.jit(do_not_specialize=["length", "chunks", "event", "stride_mu", "stride_logvar"])
def _backward(
    grad_output,  # (rows,)
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    grad_mu,  # (B, D)
    grad_logvar,  # (B, D)
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    event: tl.int64,
    stride_mu: tl.int64,
    stride_logvar: tl.int64,
    weight: tl.float64,
    TILE: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    DENSE: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1).to(INDEX)
    length, step = multiple(length, INDEX, VECTOR, ALIGNED), tl.cast(chunks, INDEX) * (TILE * VECTOR)
    event = multiple(event, INDEX, VECTOR, ALIGNED)
    stride_mu = multiple(stride_mu, INDEX, VECTOR, ALIGNED)
    stride_logvar = multiple(stride_logvar, INDEX, VECTOR, ALIGNED)
    base = row * length
    factor = scalar(weight, weight_tensor, COMPUTE) * tl.load(grad_output + row).to(COMPUTE)
    for start in range(chunk * (TILE * VECTOR), length, step):
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        at_mu = strided(start, event, stride_mu, VECTOR, TILE, ALIGNED, DENSE)
        mean = tl.load(mu + row * stride_mu + at_mu, mask=mask, other=0.0).to(COMPUTE)
        at_logvar = strided(start, event, stride_logvar, VECTOR, TILE, ALIGNED, DENSE)
        log = tl.load(logvar + row * stride_logvar + at_logvar, mask=mask, other=0.0).to(COMPUTE)
        _, slope, _ = divergence(mean, log)
        tl.store(grad_mu + base + place, (factor * mean).to(grad_mu.dtype.element_ty), mask=mask)
        tl.store(grad_logvar + base + place, (factor * slope).to(grad_logvar.dtype.element_ty), mask=mask)


def gaussian_kl(
    mu: Tensor, logvar: Tensor, reduction: int, weight: float, weight_tensor: Tensor | None, with_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    strides = row_stride(mu), row_stride(logvar)
    cut = plan(mu, reduction == NONE, strides=strides)
    loss, partials = loss_and_partials(mu, reduction, cut)
    grad_mu, grad_logvar = (empty_gradient(mu, reduction, with_grad) for _ in range(2))
    if not cut.empty:
        weight = folded_weight(weight, reduction, mu.shape[0])
        gradients = (grad_mu, grad_logvar) if grad_mu.numel() else (None, None)
        with on_device_of(mu):
            _forward[cut.grid](
                mu, logvar, *gradients, partials, weight_tensor,
                cut.length, cut.chunks, cut.event, *strides, weight, FINAL=cut.chunks == 1, **cut.meta,
            )  # fmt: skip
            finish(partials, loss, weight_tensor, weight, cut)
    return loss, grad_mu, grad_logvar


def gaussian_kl_backward(
    grad_output: Tensor, mu: Tensor, logvar: Tensor, reduction: int, weight: float, weight_tensor: Tensor | None
) -> tuple[Tensor, Tensor]:
    strides = row_stride(mu), row_stride(logvar)
    cut = plan(mu, reduction == NONE, strides=strides)
    grad_mu, grad_logvar = mu.new_empty(mu.shape), mu.new_empty(mu.shape)
    if not cut.empty:
        weight = folded_weight(weight, reduction, mu.shape[0])
        with on_device_of(mu):
            _backward[cut.grid](
                grad_output, mu, logvar, grad_mu, grad_logvar, weight_tensor,
                cut.length, cut.chunks, cut.event, *strides, weight, **cut.meta,
            )  # fmt: skip
    return grad_mu, grad_logvar
