"""The loop of the latent operators: the sample, its KL, or both, from one read of mu and logvar and one exponential.

A pointer that is None leaves its part of a kernel out. Noise is drawn in registers, again in backward, and stored
never.
"""

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ._launch import NONE, SUM, Sum, folded_weight, on_device_of, plan, row_stride, scalar, settle, summation
from ._math import exp_expm1
from ._noise import normals
from ._tile import multiple, span, strided

_INTEGERS = ["length", "chunks", "event", "stride_mu", "stride_logvar", "first", "stream"]


@triton.jit
def _spread(logvar):
    """The standard deviation, and the variance less one, from one exponential."""
    deviation, less_one = exp_expm1(0.5 * logvar)
    # exp(logvar) - 1 as a product, where neither factor has lost its digits.
    return deviation, less_one * (less_one + 2.0)


@triton.jit
def _clamped(logvar, low, high, COMPUTE: tl.constexpr):
    """Within bounds that come in fp64; a NaN stays."""
    low, high = scalar(low, None, COMPUTE), scalar(high, None, COMPUTE)
    return tl.where(logvar < low, low, tl.where(logvar > high, high, logvar))


@triton.jit(do_not_specialize=_INTEGERS)
def _forward(
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    z,  # (B, D) or None: no sample
    kl,  # (rows,) or None: no KL
    partials,  # (rows, chunks) or None
    tickets,  # (rows,) or None
    grad_mu,  # (B, D) or None: no gradients of the KL
    grad_logvar,  # (B, D) or None
    eps,  # (B, D) or None
    state,  # (2,) int64 [seed, step], or None
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    event: tl.int64,
    stride_mu: tl.int64,
    stride_logvar: tl.int64,
    first: tl.int64,
    stream: tl.int64,
    weight: tl.float64,
    low: tl.float64,
    high: tl.float64,
    CLAMP: tl.constexpr,
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
    if grad_mu is not None:
        factor = scalar(weight, weight_tensor, COMPUTE)
    total = tl.zeros((TILE, VECTOR), COMPUTE)
    # Quads cross rows, so a segment may start inside one; ALIGNED ones never do.
    lead = 0 if ALIGNED or z is None else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + lead, step):
        start = tile - lead
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        at_mu = strided(start, event, stride_mu, VECTOR, TILE, ALIGNED, DENSE)
        mean = tl.load(mu + row * stride_mu + at_mu, mask=mask, other=0.0).to(COMPUTE)
        at_logvar = strided(start, event, stride_logvar, VECTOR, TILE, ALIGNED, DENSE)
        raw = tl.load(logvar + row * stride_logvar + at_logvar, mask=mask, other=0.0).to(COMPUTE)
        log = _clamped(raw, low, high, COMPUTE) if CLAMP else raw
        outside = (raw < log) | (raw > log)  # no gradient there; one on the bounds, and a NaN's stays NaN
        # Noise first, z last: in other orders sample and KL need more registers (58, not 40: sm_90, fp32).
        if eps is not None:
            noise = tl.load(eps + base + place, mask=mask, other=0.0).to(COMPUTE)
        elif z is not None:
            noise = normals(state, stream, first + base + start, TILE, VECTOR, COMPUTE)
        deviation, variance_less_one = _spread(log)
        if kl is not None:
            total += tl.where(mask, 0.5 * (mean * mean + (variance_less_one - log)), 0.0)
            if grad_mu is not None:
                to_mu, to_logvar = factor * mean, factor * (0.5 * variance_less_one)
                if CLAMP:
                    to_logvar = tl.where(outside, 0.0, to_logvar)
                tl.store(grad_mu + base + place, to_mu.to(grad_mu.dtype.element_ty), mask=mask)
                tl.store(grad_logvar + base + place, to_logvar.to(grad_logvar.dtype.element_ty), mask=mask)
        if z is not None:
            tl.store(z + base + place, (mean + deviation * noise).to(z.dtype.element_ty), mask=mask)
    if kl is not None:
        partial = tl.sum(tl.sum(total, axis=1), axis=0)
        settle(partial, kl, partials, tickets, weight_tensor, weight, row, chunk, chunks)


@triton.jit(do_not_specialize=_INTEGERS)
def _backward(
    grad_z,  # (B, D) or None: the KL's gradients alone
    grad_kl,  # (rows,) or None: the sample's gradients alone
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    grad_mu,  # (B, D) or None: not wanted
    grad_logvar,  # (B, D)
    eps,  # (B, D) or None
    state,  # (2,) int64 [seed, step], or None
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    event: tl.int64,
    stride_mu: tl.int64,
    stride_logvar: tl.int64,
    first: tl.int64,
    stream: tl.int64,
    weight: tl.float64,
    low: tl.float64,
    high: tl.float64,
    CLAMP: tl.constexpr,
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
    if grad_kl is not None:
        factor = scalar(weight, weight_tensor, COMPUTE) * tl.load(grad_kl + row).to(COMPUTE)
    # Quads cross rows, so a segment may start inside one; ALIGNED ones never do.
    lead = 0 if ALIGNED or grad_z is None else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + lead, step):
        start = tile - lead
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        at_logvar = strided(start, event, stride_logvar, VECTOR, TILE, ALIGNED, DENSE)
        raw = tl.load(logvar + row * stride_logvar + at_logvar, mask=mask, other=0.0).to(COMPUTE)
        log = _clamped(raw, low, high, COMPUTE) if CLAMP else raw
        outside = (raw < log) | (raw > log)  # no gradient there; one on the bounds, and a NaN's stays NaN
        # Noise first again: after the KL's terms, it takes more registers in bf16.
        if eps is not None:
            noise = tl.load(eps + base + place, mask=mask, other=0.0).to(COMPUTE)
        elif grad_z is not None:
            noise = normals(state, stream, first + base + start, TILE, VECTOR, COMPUTE)
        if grad_kl is not None:
            at_mu = strided(start, event, stride_mu, VECTOR, TILE, ALIGNED, DENSE)
            mean = tl.load(mu + row * stride_mu + at_mu, mask=mask, other=0.0).to(COMPUTE)
        if grad_z is not None:
            of_z = tl.load(grad_z + base + place, mask=mask, other=0.0).to(COMPUTE)
        deviation, variance_less_one = _spread(log)
        to_mu, to_logvar = tl.zeros((TILE, VECTOR), COMPUTE), tl.zeros((TILE, VECTOR), COMPUTE)
        if grad_kl is not None:
            to_mu, to_logvar = factor * mean, factor * (0.5 * variance_less_one)
        if grad_z is not None:
            to_mu += of_z
            to_logvar += 0.5 * of_z * deviation * noise
        if CLAMP:
            to_logvar = tl.where(outside, 0.0, to_logvar)
        if grad_mu is not None:
            tl.store(grad_mu + base + place, to_mu.to(grad_mu.dtype.element_ty), mask=mask)
        tl.store(grad_logvar + base + place, to_logvar.to(grad_logvar.dtype.element_ty), mask=mask)


class Noise(NamedTuple):
    """The arguments of a draw, as every schema with noise has them."""

    eps: Tensor | None
    state: Tensor | None
    row_offset: int
    stream: int


class Clamp(NamedTuple):
    """Bounds of logvar, as every schema of a latent term has them: -inf and inf where there are none."""

    low: float
    high: float

    @property
    def active(self) -> bool:
        return self.low > -math.inf or self.high < math.inf


class Reduce(NamedTuple):
    """The arguments of a reduction, as every schema with a loss has them."""

    code: int
    weight: float
    weight_tensor: Tensor | None


_NO_NOISE, _NO_KL = Noise(None, None, 0, 0), Reduce(SUM, 0.0, None)


def forward(
    mu: Tensor,
    logvar: Tensor,
    *,
    clamp: Clamp,
    z: Tensor | None = None,
    noise: Noise = _NO_NOISE,
    reduce: Reduce | None = None,
    gradients: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor | None:
    """Write z and the gradients of the KL where given; return the KL if there is a reduction for it."""
    strides = row_stride(mu), row_stride(logvar)
    code, weight, weight_tensor = reduce or _NO_KL
    cut = plan(mu, code == NONE, strides=strides, row_offset=noise.row_offset)
    kl = summation(mu, code, cut) if reduce else Sum(None, None, None)
    if not cut.empty:
        weight = folded_weight(weight, code, mu.shape[0])
        with on_device_of(mu):
            _forward[cut.grid](
                mu, logvar, z, *kl, *gradients, noise.eps, noise.state, weight_tensor,
                cut.length, cut.chunks, cut.event, *strides, cut.first, noise.stream, weight,
                *clamp, CLAMP=clamp.active, **cut.meta,
            )  # fmt: skip
    return kl.loss


def backward(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    mu: Tensor | None,
    logvar: Tensor,
    *,
    clamp: Clamp,
    noise: Noise = _NO_NOISE,
    reduce: Reduce = _NO_KL,
) -> tuple[Tensor | None, Tensor]:
    """The gradients of mu (where it is given) and logvar, from those of z and of the KL (where they are)."""
    strides = row_stride(logvar if mu is None else mu), row_stride(logvar)
    # Only a factor for each sample needs a segment for each sample. Clamped, two vectors a thread of bf16 take three
    # times the registers of one (sm_80).
    per_row, max_tile = reduce.code == NONE and grad_kl is not None, 256 if clamp.active else 512
    cut = plan(logvar, per_row, strides=strides, row_offset=noise.row_offset, max_tile=max_tile)
    grad_mu = None if mu is None else mu.new_empty(mu.shape)
    grad_logvar = logvar.new_empty(logvar.shape)
    if not cut.empty:
        weight = folded_weight(reduce.weight, reduce.code, logvar.shape[0])
        with on_device_of(logvar):
            _backward[cut.grid](
                grad_z, grad_kl, mu, logvar, grad_mu, grad_logvar, noise.eps, noise.state, reduce.weight_tensor,
                cut.length, cut.chunks, cut.event, *strides, cut.first, noise.stream, weight,
                *clamp, CLAMP=clamp.active, **cut.meta,
            )  # fmt: skip
    return grad_mu, grad_logvar
