"""The latent term: sample and KL together, 12 bytes an element forward and 20 backward in fp32; no noise is stored."""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import NONE, finish, folded_weight, loss_and_partials, on_device_of, plan, row_stride, scalar
from ._noise import normals
from ._tile import multiple, span, strided
from .gaussian_kl import divergence


@triton.jit(do_not_specialize=["length", "chunks", "event", "stride_mu", "stride_logvar", "first", "stream"])
def _forward(
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    z,  # (B, D)
    partials,  # (rows, chunks)
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
    total = tl.zeros((TILE, VECTOR), COMPUTE)
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
        loss, _, deviation = divergence(mean, log)
        total += tl.where(mask, loss, 0.0)
        tl.store(z + base + place, (mean + deviation * noise).to(z.dtype.element_ty), mask=mask)
    partial = tl.sum(tl.sum(total, axis=1), axis=0)
    if FINAL:
        partial *= scalar(weight, weight_tensor, COMPUTE)
    tl.store(partials + row * chunks + chunk, partial)


@triton.jit(do_not_specialize=["length", "chunks", "event", "stride_mu", "stride_logvar", "first", "stream"])
def _backward(
    grad_z,  # (B, D) or None
    grad_kl,  # (rows,) or None
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    grad_mu,  # (B, D)
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
    lead = 0 if ALIGNED else ((first + base) % 4).to(INDEX)
    for tile in range(chunk * (TILE * VECTOR), length + lead, step):
        start = tile - lead
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        at_mu = strided(start, event, stride_mu, VECTOR, TILE, ALIGNED, DENSE)
        mean = tl.load(mu + row * stride_mu + at_mu, mask=mask, other=0.0).to(COMPUTE)
        at_logvar = strided(start, event, stride_logvar, VECTOR, TILE, ALIGNED, DENSE)
        log = tl.load(logvar + row * stride_logvar + at_logvar, mask=mask, other=0.0).to(COMPUTE)
        _, slope, deviation = divergence(mean, log)
        to_mu, to_logvar = tl.zeros((TILE, VECTOR), COMPUTE), tl.zeros((TILE, VECTOR), COMPUTE)
        if grad_kl is not None:
            to_mu, to_logvar = factor * mean, factor * slope
        if grad_z is not None:
            if eps is not None:
                noise = tl.load(eps + base + place, mask=mask, other=0.0).to(COMPUTE)
            else:
                noise = normals(state, stream, first + base + start, TILE, VECTOR, COMPUTE)
            of_z = tl.load(grad_z + base + place, mask=mask, other=0.0).to(COMPUTE)
            to_mu += of_z
            to_logvar += 0.5 * of_z * deviation * noise
        tl.store(grad_mu + base + place, (to_mu).to(grad_mu.dtype.element_ty), mask=mask)
        tl.store(grad_logvar + base + place, (to_logvar).to(grad_logvar.dtype.element_ty), mask=mask)


def reparameterize_kl(
    mu: Tensor,
    logvar: Tensor,
    eps: Tensor | None,
    state: Tensor | None,
    row_offset: int,
    stream: int,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> tuple[Tensor, Tensor]:
    strides = row_stride(mu), row_stride(logvar)
    cut = plan(mu, reduction == NONE, strides=strides, row_offset=row_offset)
    kl, partials = loss_and_partials(mu, reduction, cut)
    z = mu.new_empty(mu.shape)
    if not cut.empty:
        weight = folded_weight(weight, reduction, mu.shape[0])
        with on_device_of(mu):
            _forward[cut.grid](
                mu, logvar, z, partials, eps, state, weight_tensor,
                cut.length, cut.chunks, cut.event, *strides, cut.first, stream, weight,
                FINAL=cut.chunks == 1, **cut.meta,
            )  # fmt: skip
            finish(partials, kl, weight_tensor, weight, cut)
    return z, kl


def reparameterize_kl_backward(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    mu: Tensor,
    logvar: Tensor,
    eps: Tensor | None,
    state: Tensor | None,
    row_offset: int,
    stream: int,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> tuple[Tensor, Tensor]:
    strides = row_stride(mu), row_stride(logvar)
    # Only a factor for each sample needs a segment for each sample.
    cut = plan(mu, reduction == NONE and grad_kl is not None, strides=strides, row_offset=row_offset)
    grad_mu, grad_logvar = mu.new_empty(mu.shape), mu.new_empty(mu.shape)
    if not cut.empty:
        weight = folded_weight(weight, reduction, mu.shape[0])
        with on_device_of(mu):
            _backward[cut.grid](
                grad_z, grad_kl, mu, logvar, grad_mu, grad_logvar, eps, state, weight_tensor,
                cut.length, cut.chunks, cut.event, *strides, cut.first, stream, weight, **cut.meta,
            )  # fmt: skip
    return grad_mu, grad_logvar
