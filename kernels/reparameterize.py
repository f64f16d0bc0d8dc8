"""``z = mu + exp(logvar / 2) * eps``: the noise is drawn in registers, again in backward, and stored never."""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import on_device_of, plan, row_stride
from ._math import exp_expm1
from ._noise import normals
from ._tile import multiple, span, strided


@triton.jit(do_not_specialize=["length", "chunks", "event", "stride_mu", "stride_logvar", "first", "stream"])
def _forward(
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    z,  # (B, D)
    eps,  # (B, D) or None
    state,  # (2,) int64 [seed, step], or None
    length: tl.int64,
    chunks: tl.int64,
    event: tl.int64,
    stride_mu: tl.int64,
    stride_logvar: tl.int64,
    first: tl.int64,
    stream: tl.int64,
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
    # Quads cross rows, so a segment may start inside one; ALIGNED ones never do.
    lead = 0 if ALIGNED else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + lead, step):
        start = tile - lead
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        at_mu = strided(start, event, stride_mu, VECTOR, TILE, ALIGNED, DENSE)
        mean = tl.load(mu + row * stride_mu + at_mu, mask=mask, other=0.0).to(COMPUTE)
        at_logvar = strided(start, event, stride_logvar, VECTOR, TILE, ALIGNED, DENSE)
        log = tl.load(logvar + row * stride_logvar + at_logvar, mask=mask, other=0.0).to(COMPUTE)
        if eps is not None:
            noise = tl.load(eps + base + place, mask=mask, other=0.0).to(COMPUTE)
        else:
            noise = normals(state, stream, first + base + start, TILE, VECTOR, COMPUTE)
        deviation, _ = exp_expm1(0.5 * log)
        tl.store(z + base + place, (mean + deviation * noise).to(z.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["length", "chunks", "event", "stride_logvar", "first", "stream"])
def _backward(
    grad_z,  # (B, D)
    logvar,  # (B, D), rows stride_logvar apart
    grad_logvar,  # (B, D)
    eps,  # (B, D) or None
    state,  # (2,) int64 [seed, step], or None
    length: tl.int64,
    chunks: tl.int64,
    event: tl.int64,
    stride_logvar: tl.int64,
    first: tl.int64,
    stream: tl.int64,
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
    stride_logvar = multiple(stride_logvar, INDEX, VECTOR, ALIGNED)
    base = row * length
    # Quads cross rows, so a segment may start inside one; ALIGNED ones never do.
    lead = 0 if ALIGNED else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + lead, step):
        start = tile - lead
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        slope = tl.load(grad_z + base + place, mask=mask, other=0.0).to(COMPUTE)
        at_logvar = strided(start, event, stride_logvar, VECTOR, TILE, ALIGNED, DENSE)
        log = tl.load(logvar + row * stride_logvar + at_logvar, mask=mask, other=0.0).to(COMPUTE)
        if eps is not None:
            noise = tl.load(eps + base + place, mask=mask, other=0.0).to(COMPUTE)
        else:
            noise = normals(state, stream, first + base + start, TILE, VECTOR, COMPUTE)
        deviation, _ = exp_expm1(0.5 * log)
        tl.store(
            grad_logvar + base + place, (0.5 * slope * deviation * noise).to(grad_logvar.dtype.element_ty), mask=mask
        )


def reparameterize(
    mu: Tensor, logvar: Tensor, eps: Tensor | None, state: Tensor | None, row_offset: int, stream: int
) -> Tensor:
    strides = row_stride(mu), row_stride(logvar)
    cut = plan(mu, False, strides=strides, row_offset=row_offset)
    z = mu.new_empty(mu.shape)
    if not cut.empty:
        with on_device_of(mu):
            _forward[cut.grid](
                mu, logvar, z, eps, state, cut.length, cut.chunks, cut.event, *strides, cut.first, stream, **cut.meta
            )
    return z


def reparameterize_backward(
    grad_z: Tensor, logvar: Tensor, eps: Tensor | None, state: Tensor | None, row_offset: int, stream: int
) -> Tensor:
    stride = row_stride(logvar)
    cut = plan(logvar, False, strides=(stride,), row_offset=row_offset)
    grad_logvar = logvar.new_empty(logvar.shape)
    if not cut.empty:
        with on_device_of(logvar):
            _backward[cut.grid](
                grad_z, logvar, grad_logvar, eps, state,
                cut.length, cut.chunks, cut.event, stride, cut.first, stream, **cut.meta,
            )  # fmt: skip
    return grad_logvar
