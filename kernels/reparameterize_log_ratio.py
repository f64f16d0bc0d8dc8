"""K samples a row and the log ratio of each: mu and logvar are read once, noise is drawn in registers in both passes.

A program takes ROWS rows and SPAN vectors of each, one vector a thread, and loops over the samples. If a row is not a
whole number of quads (ragged), a tile is four columns narrower: it draws the quads that it straddles and moves each
number to its column.
"""

import math

import triton
import triton.language as tl
from torch import Tensor, float32, float64

from ._launch import _MAX_CHUNKS, LaunchConfig, on_device_of, row_stride
from ._noise import quads
from ._tile import multiple_of_vector, store

# Vectors a program: one warp's, or four where one would make more than a few waves. NOT YET MEASURED ON A GPU.
_SMALL = 2**16
_FEW = 32
_MANY = 128
# Codes of fastvae/ops/reparameterize_log_ratio.py.
_IWAE = 0
_DREG = 2
_INTEGERS = ["batch", "event", "samples", "chunks", "stride_mu", "stride_logvar", "first", "stream"]


@triton.jit
def _place(
    batch, event,
    ROWS: tl.constexpr, SPAN: tl.constexpr, VECTOR: tl.constexpr, ALIGNED: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Row (TILE, 1), column (TILE, VECTOR) and mask of a tile; the column at which its chunk starts."""
    vector = tl.arange(0, ROWS * SPAN)[:, None]
    row = tl.program_id(0).to(INDEX) * ROWS + vector // SPAN
    # Four columns of a ragged tile are left for the quad that its row may start inside.
    reach: tl.constexpr = SPAN * VECTOR - (0 if ALIGNED else 4)
    start = tl.program_id(1).to(INDEX) * reach
    head = vector % SPAN * VECTOR
    local = head + tl.arange(0, VECTOR)[None, :]
    if ALIGNED:
        mask = (row < batch) & (start + head < event)
    else:
        mask = (row < batch) & (start + local < event) & (local < reach)
    return row, start + local, mask, start


@triton.jit
def _draw(
    eps, state, stream, first, base, column, start, mask,
    ROWS: tl.constexpr, SPAN: tl.constexpr, VECTOR: tl.constexpr, ALIGNED: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """The noise of a tile; ``base`` (TILE, 1) is the element of z at which the sample of its row starts."""
    TILE: tl.constexpr = ROWS * SPAN
    if eps is not None:
        noise = tl.load(eps + base + column, mask=mask, other=0.0).to(COMPUTE)
    else:
        head = tl.arange(0, TILE)[:, None] % SPAN * VECTOR
        element = first + (base + start).to(tl.int64)
        quad_offset = element % 4  # 0 if ALIGNED
        noise = quads(state, stream, (element - quad_offset + head) // 4, TILE, VECTOR, COMPUTE)
        if not ALIGNED:
            place = head + tl.arange(0, VECTOR)[None, :] + quad_offset.to(tl.int32)
            place = tl.reshape(tl.minimum(place, SPAN * VECTOR - 1), (ROWS, SPAN * VECTOR))
            noise = tl.reshape(tl.gather(tl.reshape(noise, (ROWS, SPAN * VECTOR)), place, 1), (TILE, VECTOR))
    return noise


@triton.jit(do_not_specialize=_INTEGERS)
def _forward(
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    z,  # (B, K, D)
    partials,  # (B, K, chunks)
    eps,  # (B, K, D) or None
    state,  # (2,) int64 [seed, step], or None
    batch: tl.int64,
    event: tl.int64,
    samples: tl.int64,
    chunks: tl.int64,
    stride_mu: tl.int64,
    stride_logvar: tl.int64,
    first: tl.int64,
    stream: tl.int64,
    ROWS: tl.constexpr,
    SPAN: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    event = multiple_of_vector(event, INDEX, VECTOR, ALIGNED)
    first = multiple_of_vector(first, tl.int64, VECTOR, ALIGNED)
    stride_mu = multiple_of_vector(stride_mu, INDEX, VECTOR, ALIGNED)
    stride_logvar = multiple_of_vector(stride_logvar, INDEX, VECTOR, ALIGNED)
    samples, chunks = tl.cast(samples, INDEX), tl.cast(chunks, INDEX)
    row, column, mask, start = _place(batch, event, ROWS, SPAN, VECTOR, ALIGNED, INDEX)
    mean = tl.load(mu + row * stride_mu + column, mask=mask, other=0.0).to(COMPUTE)
    log = tl.load(logvar + row * stride_logvar + column, mask=mask, other=0.0).to(COMPUTE)
    deviation = tl.exp(0.5 * log)
    sums = tl.program_id(0).to(INDEX) * ROWS + tl.arange(0, ROWS)
    for k in range(samples):
        base = (row * samples + k) * event
        noise = _draw(eps, state, stream, first, base, column, start, mask, ROWS, SPAN, VECTOR, ALIGNED, COMPUTE)
        value = mean + deviation * noise
        store(z + base, column, value, mask)
        terms = tl.where(mask, 0.5 * ((value - noise) * (value + noise) - log), 0.0)
        total = tl.sum(tl.reshape(tl.sum(terms, axis=1), (ROWS, SPAN)), axis=1)
        tl.store(partials + (sums * samples + k) * chunks + tl.program_id(1), total, mask=sums < batch)


@triton.jit(do_not_specialize=_INTEGERS)
def _backward(
    grad_z,  # (B, K, D) or None
    grad_ratio,  # (B, K) or None
    mu,  # (B, D), rows stride_mu apart
    logvar,  # (B, D), rows stride_logvar apart
    grad_mu,  # (B, D)
    grad_logvar,  # (B, D)
    eps,  # (B, K, D) or None
    state,  # (2,) int64 [seed, step], or None
    batch: tl.int64,
    event: tl.int64,
    samples: tl.int64,
    stride_mu: tl.int64,
    stride_logvar: tl.int64,
    first: tl.int64,
    stream: tl.int64,
    CONSTANT: tl.constexpr,
    WEIGHTED: tl.constexpr,
    ROWS: tl.constexpr,
    SPAN: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """CONSTANT: mu and logvar are constants in log q. WEIGHTED: each sample is weighted by its share of its row."""
    event = multiple_of_vector(event, INDEX, VECTOR, ALIGNED)
    first = multiple_of_vector(first, tl.int64, VECTOR, ALIGNED)
    stride_mu = multiple_of_vector(stride_mu, INDEX, VECTOR, ALIGNED)
    stride_logvar = multiple_of_vector(stride_logvar, INDEX, VECTOR, ALIGNED)
    samples = tl.cast(samples, INDEX)
    row, column, mask, start = _place(batch, event, ROWS, SPAN, VECTOR, ALIGNED, INDEX)
    log = tl.load(logvar + row * stride_logvar + column, mask=mask, other=0.0).to(COMPUTE)
    deviation = tl.exp(0.5 * log)
    if grad_ratio is not None:
        mean = tl.load(mu + row * stride_mu + column, mask=mask, other=0.0).to(COMPUTE)
    if CONSTANT:
        precision = 1.0 / deviation
    if WEIGHTED:
        total = tl.zeros((ROWS * SPAN, 1), COMPUTE)
        for k in range(samples):
            total += tl.load(grad_ratio + row * samples + k, mask=row < batch, other=0.0)
        total = tl.where(total == 0.0, float("inf"), total)  # a row without weight has shares of 0, not 0 / 0
    past = tl.zeros((ROWS * SPAN, 1), COMPUTE)
    to_mu, to_logvar = tl.zeros((ROWS * SPAN, VECTOR), COMPUTE), tl.zeros((ROWS * SPAN, VECTOR), COMPUTE)
    for k in range(samples):
        base = (row * samples + k) * event
        noise = _draw(eps, state, stream, first, base, column, start, mask, ROWS, SPAN, VECTOR, ALIGNED, COMPUTE)
        of_z = tl.zeros((ROWS * SPAN, VECTOR), COMPUTE)
        if grad_z is not None:
            of_z += tl.load(grad_z + base + column, mask=mask, other=0.0).to(COMPUTE)
        if grad_ratio is not None:
            of_ratio = tl.load(grad_ratio + row * samples + k, mask=row < batch, other=0.0)
            slope = mean + deviation * noise
            if CONSTANT:
                slope -= noise * precision
            else:
                past += of_ratio
            of_z += of_ratio * slope
            if WEIGHTED:
                of_z *= of_ratio / total
        to_mu += of_z
        to_logvar += of_z * noise
    to_logvar = 0.5 * (deviation * to_logvar - past)
    dense = row * event + column
    store(grad_mu, dense, to_mu, mask)
    store(grad_logvar, dense, to_logvar, mask)


@triton.jit(do_not_specialize=["chunks"])
def _add(
    partials,  # (rows, chunks)
    sums,  # (rows,)
    chunks: tl.int64,
    BLOCK: tl.constexpr,
):
    """Add the parts of each ratio in order, where several programs share an event."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    tl.store(
        sums + row, tl.sum(tl.load(partials + row * chunks + k, mask=k < chunks, other=0.0).to(tl.float64), axis=0)
    )


def _launch_config(
    mu: Tensor, logvar: Tensor, samples: int, row_offset: int
) -> tuple[LaunchConfig, tuple[int, int], tuple[int, int]]:
    """The split of z, the grid, and the row strides of mu and logvar."""
    batch = mu.shape[0]
    event = math.prod(mu.shape[1:])
    strides = row_stride(mu), row_stride(logvar)
    # A row is whole quads of noise or ragged; whole quads take the widest access that fits.
    widest = 8 if mu.element_size() == 2 and all(width % 8 == 0 for width in (event, *strides)) else 4
    aligned = all(width % widest == 0 for width in (event, *strides))
    spare = 0 if aligned else 4
    needed = triton.next_power_of_2(triton.cdiv(max(event, 1) + spare, widest))
    vectors = _FEW if batch * needed <= _SMALL else _MANY
    # An event past two million is split into no more chunks than the second stage adds.
    span = min(needed, max(vectors, triton.next_power_of_2(triton.cdiv(event, widest * _MAX_CHUNKS // 2))))
    rows = max(1, vectors // span)
    reach = max(batch * event * samples, *(batch * abs(stride) for stride in strides))
    meta = {
        "ROWS": rows,
        "SPAN": span,
        "VECTOR": widest,
        "ALIGNED": aligned,
        "INDEX": tl.int32 if reach < 2**30 else tl.int64,
        "COMPUTE": tl.float64 if mu.dtype == float64 else tl.float32,
        "num_warps": vectors // 32,
        "num_stages": 1,
    }
    chunks = triton.cdiv(event, span * widest - spare)
    config = LaunchConfig(batch * samples, event, chunks, event, row_offset * samples * event, meta)
    return config, (triton.cdiv(batch, rows), chunks), strides


def reparameterize_log_ratio(
    mu: Tensor,
    logvar: Tensor,
    eps: Tensor | None,
    state: Tensor | None,
    row_offset: int,
    stream: int,
    samples: int,
) -> tuple[Tensor, Tensor]:
    batch = mu.shape[0]
    z = mu.new_empty((batch, samples, *mu.shape[1:]))
    log_ratio = mu.new_zeros((batch, samples), dtype=float64 if mu.dtype == float64 else float32)
    config, grid, strides = _launch_config(mu, logvar, samples, row_offset)
    if not config.empty:
        partials = log_ratio if config.chunks == 1 else log_ratio.new_empty((batch, samples, config.chunks))
        with on_device_of(mu):
            _forward[grid](
                mu, logvar, z, partials, eps, state, batch, config.event, samples, config.chunks, *strides,
                config.first, stream, **config.meta,
            )  # fmt: skip
            if config.chunks > 1:
                _add[(batch * samples,)](partials, log_ratio, config.chunks, BLOCK=_MAX_CHUNKS, num_warps=4)
    return z, log_ratio


def reparameterize_log_ratio_backward(
    grad_z: Tensor | None,
    grad_ratio: Tensor | None,
    mu: Tensor,
    logvar: Tensor,
    eps: Tensor | None,
    state: Tensor | None,
    row_offset: int,
    stream: int,
    samples: int,
    estimator: int,
) -> tuple[Tensor, Tensor]:
    grad_mu, grad_logvar = (mu.new_empty(mu.shape) for _ in range(2))
    config, grid, strides = _launch_config(mu, logvar, samples, row_offset)
    if not config.empty:
        weighed = grad_ratio is not None
        with on_device_of(mu):
            _backward[grid](
                grad_z, grad_ratio, mu, logvar, grad_mu, grad_logvar, eps, state, mu.shape[0], config.event, samples,
                *strides, config.first, stream,
                CONSTANT=weighed and estimator != _IWAE, WEIGHTED=weighed and estimator == _DREG, **config.meta,
            )  # fmt: skip
    return grad_mu, grad_logvar
