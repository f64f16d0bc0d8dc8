"""KL between two diagonal Gaussians: one pass reads four tensors and writes their four gradients."""

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
    row_stride,
    summation,
)
from ._math import exp_expm1
from ._tile import load_rows, multiple_of_vector, program_segment, span, store

_MAX_TILE = 256  # one vector a thread: it has four loads in flight already, and two spill if rows are strided
_INTEGERS = ["length", "chunks", "event", "stride_mu", "stride_logvar", "stride_prior_mu", "stride_prior_logvar"]


@triton.jit(do_not_specialize=_INTEGERS)
def _pass(
    grad_output,  # (rows,) or None: 1
    mu,  # (B, D), rows stride_mu apart; likewise the other three
    logvar,
    prior_mu,
    prior_logvar,
    loss_sum,  # (rows,) or None: no KL
    partials,  # (rows, chunks) or None
    semaphores,  # (rows,) or None
    grad_mu,  # (B, D), as the other three, or None: no gradients
    grad_logvar,
    grad_prior_mu,
    grad_prior_logvar,
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    event: tl.int64,
    stride_mu: tl.int64,
    stride_logvar: tl.int64,
    stride_prior_mu: tl.int64,
    stride_prior_logvar: tl.int64,
    weight: tl.float64,
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
    stride_prior_mu = multiple_of_vector(stride_prior_mu, INDEX, VECTOR, ALIGNED)
    stride_prior_logvar = multiple_of_vector(stride_prior_logvar, INDEX, VECTOR, ALIGNED)
    base = row * length
    factor = row_factor(grad_output, row, weight, weight_tensor, COMPUTE)
    total = tl.zeros((TILE, VECTOR), COMPUTE)
    for start in range(chunk * (TILE * VECTOR), length, step):
        place, mask = span(start, length, VECTOR, TILE, ALIGNED)
        mean = load_rows(mu, row, start, event, stride_mu, mask, VECTOR, TILE, ALIGNED, DENSE, COMPUTE)
        log = load_rows(logvar, row, start, event, stride_logvar, mask, VECTOR, TILE, ALIGNED, DENSE, COMPUTE)
        prior_mean = load_rows(
            prior_mu, row, start, event, stride_prior_mu, mask, VECTOR, TILE, ALIGNED, DENSE, COMPUTE
        )
        prior_log = load_rows(
            prior_logvar, row, start, event, stride_prior_logvar, mask, VECTOR, TILE, ALIGNED, DENSE, COMPUTE
        )
        # Half the exponent, for range: the square of this product need not overflow where exp(-prior_logvar) would.
        precision, _ = exp_expm1(-0.5 * prior_log)
        error = (mean - prior_mean) * precision
        difference = log - prior_log
        _, half = exp_expm1(0.5 * difference)
        ratio_less_one = half * (half + 2.0)
        if loss_sum is not None:
            total += tl.where(mask, 0.5 * (error * error + (ratio_less_one - difference)), 0.0)
        if grad_mu is not None:
            to_mu = factor * (error * precision)
            to_logvar = factor * (0.5 * ratio_less_one)
            to_prior_logvar = -factor * (0.5 * (error * error + ratio_less_one))
            store(grad_mu + base, place, to_mu, mask)
            store(grad_logvar + base, place, to_logvar, mask)
            store(grad_prior_mu + base, place, -to_mu, mask)
            store(grad_prior_logvar + base, place, to_prior_logvar, mask)
    if loss_sum is not None:
        partial = tl.sum(tl.sum(total, axis=1), axis=0)
        last_block_reduction(partial, loss_sum, partials, semaphores, weight_tensor, weight, row, chunk, chunks)


Tensors = tuple[Tensor, Tensor, Tensor, Tensor]


def gaussian_prior_kl(
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor,
    prior_logvar: Tensor,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
    with_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = mu, logvar, prior_mu, prior_logvar
    strides = tuple(row_stride(tensor) for tensor in inputs)
    config = launch_config(mu, reduction == NONE, strides=strides, max_tile=_MAX_TILE)
    total = summation(mu, reduction, config)
    gradients: Tensors = tuple(empty_gradient(mu, reduction, with_grad) for _ in range(4))
    if not config.empty:
        weight = folded_weight(weight, reduction, mu.shape[0])
        wanted = gradients if gradients[0].numel() else (None,) * 4
        with on_device_of(mu):
            _pass[config.grid](
                None, *inputs, *total, *wanted, weight_tensor,
                config.length, config.chunks, config.event, *strides, weight, **config.meta,
            )  # fmt: skip
    return total.loss, *gradients


def gaussian_prior_kl_backward(
    grad_output: Tensor,
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor,
    prior_logvar: Tensor,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> Tensors:
    inputs = mu, logvar, prior_mu, prior_logvar
    strides = tuple(row_stride(tensor) for tensor in inputs)
    config = launch_config(mu, reduction == NONE, strides=strides, max_tile=_MAX_TILE)
    gradients: Tensors = tuple(mu.new_empty(mu.shape) for _ in range(4))
    if not config.empty:
        weight = folded_weight(weight, reduction, mu.shape[0])
        with on_device_of(mu):
            _pass[config.grid](
                grad_output, *inputs, None, None, None, *gradients, weight_tensor,
                config.length, config.chunks, config.event, *strides, weight, **config.meta,
            )  # fmt: skip
    return gradients
