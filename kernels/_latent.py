"""The loop of the latent operators: the sample, its KL, or both, from one read of mu and logvar and one exponential.

A pointer that is None leaves its part of a kernel out. Noise is drawn in registers and never stored: backward draws it
again.
"""

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ._launch import (
    NONE,
    SUM,
    Sum,
    folded_weight,
    last_block_reduction,
    launch_config,
    on_device_of,
    row_stride,
    scalar,
    summation,
)
from ._math import exp_expm1
from ._noise import NO_NOISE, Noise, normals
from ._tile import load_rows, multiple_of_vector, program_segment, span, store

_INTEGERS = ["length", "chunks", "event", "stride_mu", "stride_logvar", "first", "stream"]


@triton.jit
def _spread(logvar):
    """The standard deviation, and the variance less one, from one exponential."""
    deviation, less_one = exp_expm1(0.5 * logvar)
    # exp(logvar) - 1 as a product, where neither factor has lost its digits.
    return deviation, less_one * (less_one + 2.0)


@triton.jit
def _clamped(logvar, low, high, COMPUTE: tl.constexpr):
    """Clamp logvar to bounds that are passed in fp64. A NaN stays."""
    low, high = scalar(low, None, COMPUTE), scalar(high, None, COMPUTE)
    return tl.where(logvar < low, low, tl.where(logvar > high, high, logvar))


@triton.jit(do_not_specialize=_INTEGERS)
def _forward(
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    z,  # (B, D) or None: no sample
    kl,  # (rows,) or None: no KL
    partials,  # (rows, chunks) or None
    semaphores,  # (rows,) or None
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
    row, chunk, length, step = program_segment(length, chunks, TILE, VECTOR, ALIGNED, INDEX)
    event = multiple_of_vector(event, INDEX, VECTOR, ALIGNED)
    stride_mu = multiple_of_vector(stride_mu, INDEX, VECTOR, ALIGNED)
    stride_logvar = multiple_of_vector(stride_logvar, INDEX, VECTOR, ALIGNED)
    base = row * length
    if grad_mu is not None:
        factor = scalar(weight, weight_tensor, COMPUTE)
    total = tl.zeros((TILE, VECTOR), COMPUTE)
    # Quads cross rows, so a segment may start inside one; ALIGNED ones never do.
    quad_offset = 0 if ALIGNED or z is None else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + quad_offset, step):
        start = tile - quad_offset
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        mean = load_rows(mu, row, start, event, stride_mu, mask, VECTOR, TILE, ALIGNED, DENSE, COMPUTE)
        raw = load_rows(logvar, row, start, event, stride_logvar, mask, VECTOR, TILE, ALIGNED, DENSE, COMPUTE)
        log = _clamped(raw, low, high, COMPUTE) if CLAMP else raw
        outside = (raw < log) | (raw > log)  # no gradient here, but on the bounds; that of a NaN stays NaN
        # Noise first, z last: in other orders sample and KL take more registers (58, not 40: sm_90, fp32).
        if eps is not None:
            noise = tl.load(eps + base + place, mask=mask, other=0.0).to(COMPUTE)
        elif z is not None:
            noise = normals(state, stream, first + base + start, TILE, VECTOR, COMPUTE)
        deviation, variance_less_one = _spread(log)
        if kl is not None:
            total += tl.where(mask, 0.5 * (mean * mean + (variance_less_one - log)), 0.0)
            if grad_mu is not None:
                to_mu = factor * mean
                to_logvar = factor * (0.5 * variance_less_one)
                if CLAMP:
                    to_logvar = tl.where(outside, 0.0, to_logvar)
                store(grad_mu + base, place, to_mu, mask)
                store(grad_logvar + base, place, to_logvar, mask)
        if z is not None:
            store(z + base, place, mean + deviation * noise, mask)
    if kl is not None:
        partial = tl.sum(tl.sum(total, axis=1), axis=0)
        last_block_reduction(partial, kl, partials, semaphores, weight_tensor, weight, row, chunk, chunks)


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
    row, chunk, length, step = program_segment(length, chunks, TILE, VECTOR, ALIGNED, INDEX)
    event = multiple_of_vector(event, INDEX, VECTOR, ALIGNED)
    stride_mu = multiple_of_vector(stride_mu, INDEX, VECTOR, ALIGNED)
    stride_logvar = multiple_of_vector(stride_logvar, INDEX, VECTOR, ALIGNED)
    base = row * length
    if grad_kl is not None:
        factor = scalar(weight, weight_tensor, COMPUTE) * tl.load(grad_kl + row).to(COMPUTE)
    # Quads cross rows, so a segment may start inside one; ALIGNED ones never do.
    quad_offset = 0 if ALIGNED or grad_z is None else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + quad_offset, step):
        start = tile - quad_offset
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        raw = load_rows(logvar, row, start, event, stride_logvar, mask, VECTOR, TILE, ALIGNED, DENSE, COMPUTE)
        log = _clamped(raw, low, high, COMPUTE) if CLAMP else raw
        outside = (raw < log) | (raw > log)  # no gradient here, but on the bounds; that of a NaN stays NaN
        # Noise first: after the KL's terms, it takes more registers in bf16.
        if eps is not None:
            noise = tl.load(eps + base + place, mask=mask, other=0.0).to(COMPUTE)
        elif grad_z is not None:
            noise = normals(state, stream, first + base + start, TILE, VECTOR, COMPUTE)
        if grad_kl is not None:
            mean = load_rows(mu, row, start, event, stride_mu, mask, VECTOR, TILE, ALIGNED, DENSE, COMPUTE)
        if grad_z is not None:
            of_z = tl.load(grad_z + base + place, mask=mask, other=0.0).to(COMPUTE)
        deviation, variance_less_one = _spread(log)
        to_mu, to_logvar = tl.zeros((TILE, VECTOR), COMPUTE), tl.zeros((TILE, VECTOR), COMPUTE)
        if grad_kl is not None:
            to_mu = factor * mean
            to_logvar = factor * (0.5 * variance_less_one)
        if grad_z is not None:
            to_mu += of_z
            to_logvar += 0.5 * of_z * deviation * noise
        if CLAMP:
            to_logvar = tl.where(outside, 0.0, to_logvar)
        if grad_mu is not None:
            store(grad_mu + base, place, to_mu, mask)
        store(grad_logvar + base, place, to_logvar, mask)


class Clamp(NamedTuple):
    """The bounds of logvar in the schema of a latent term: -inf and inf if there are none."""

    low: float
    high: float

    @property
    def active(self) -> bool:
        return self.low > -math.inf or self.high < math.inf


class Reduce(NamedTuple):
    """The arguments of a reduction, which end every schema with a loss."""

    code: int
    weight: float
    weight_tensor: Tensor | None


_NO_KL = Reduce(SUM, 0.0, None)


def unpack(
    eps: Tensor | None,
    state: Tensor | None,
    row_offset: int,
    stream: int,
    low: float,
    high: float,
    reduction: int = _NO_KL.code,
    weight: float = _NO_KL.weight,
    weight_tensor: Tensor | None = None,
) -> tuple[Noise, Clamp, Reduce]:
    """Make records of the arguments that follow mu and logvar in the schemas of the operators with noise."""
    return Noise(eps, state, row_offset, stream), Clamp(low, high), Reduce(reduction, weight, weight_tensor)


def forward(
    mu: Tensor,
    logvar: Tensor,
    *,
    clamp: Clamp,
    z: Tensor | None = None,
    noise: Noise = NO_NOISE,
    reduce: Reduce | None = None,
    gradients: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor | None:
    """Write z and the gradients of the KL where given; return the KL if there is a reduction for it."""
    strides = row_stride(mu), row_stride(logvar)
    code, weight, weight_tensor = reduce or _NO_KL
    config = launch_config(mu, code == NONE, strides=strides, row_offset=noise.row_offset)
    kl = summation(mu, code, config) if reduce else Sum(None, None, None)
    if not config.empty:
        weight = folded_weight(weight, code, mu.shape[0])
        with on_device_of(mu):
            _forward[config.grid](
                mu, logvar, z, *kl, *gradients, noise.eps, noise.state, weight_tensor,
                config.length, config.chunks, config.event, *strides, config.first, noise.stream, weight,
                *clamp, CLAMP=clamp.active, **config.meta,
            )  # fmt: skip
    return kl.loss


def backward(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    mu: Tensor | None,
    logvar: Tensor,
    *,
    clamp: Clamp,
    noise: Noise = NO_NOISE,
    reduce: Reduce = _NO_KL,
) -> tuple[Tensor | None, Tensor]:
    """Return the gradients of mu (None if mu is) and logvar, from those of z and the KL that are not None."""
    strides = row_stride(logvar if mu is None else mu), row_stride(logvar)
    # Only a factor for each sample needs a segment for each sample.
    per_row = reduce.code == NONE and grad_kl is not None
    # With a clamp, two vectors a thread of bf16 take three times the registers of one (sm_80).
    max_tile = 256 if clamp.active else 512
    config = launch_config(logvar, per_row, strides=strides, row_offset=noise.row_offset, max_tile=max_tile)
    grad_mu = None if mu is None else mu.new_empty(mu.shape)
    grad_logvar = logvar.new_empty(logvar.shape)
    if not config.empty:
        weight = folded_weight(reduce.weight, reduce.code, logvar.shape[0])
        with on_device_of(logvar):
            _backward[config.grid](
                grad_z, grad_kl, mu, logvar, grad_mu, grad_logvar, noise.eps, noise.state, reduce.weight_tensor,
                config.length, config.chunks, config.event, *strides, config.first, noise.stream, weight,
                *clamp, CLAMP=clamp.active, **config.meta,
            )  # fmt: skip
    return grad_mu, grad_logvar
