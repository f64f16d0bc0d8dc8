"""Mixture of discretized logistics: one pass holds all components of a few pixels in registers."""

import math

import triton
import triton.language as tl
from torch import Tensor

from ._launch import empty_gradient, folded_weight, last_block_reduction, on_device_of, row_factor, summation
from ._logistic import logistic_bin
from ._math import exp_expm1, pixel
from ._planes import locate, plane_launch_config
from ._tile import multiple_of_vector, program_segment, store

_FLOOR = tl.constexpr(-7 - math.log(2))

# Elements of one parameter a program, by bytes of one: reasoned, NOT YET MEASURED ON A GPU. With 8 warps a thread
# holds 4 of each (2 of fp64), which with their derivatives take 182 registers (sm_90, fp32, colour). Twice as many
# would spill, so 16-bit types are accessed 64 bits at a time.
_ELEMENTS = {2: 1024, 4: 1024, 8: 512}


@triton.jit
def _planes(parameters, at, there, first, inner, OTHER: tl.constexpr, COMPUTE: tl.constexpr):
    """Load a parameter of all components, whose planes start at ``first``."""
    return tl.load(parameters + at + first * inner, mask=there, other=OTHER).to(COMPUTE)


@triton.jit
def _keep(gradient, at, there, first, inner, value):
    if gradient is not None:
        store(gradient + at, first * inner, value, there)


@triton.jit
def _couple(coefficient):
    """Tanh and its derivative: from the exponential of -2 |c|, so that small ones keep their digits."""
    decay, less_one = exp_expm1(-2.0 * tl.abs(coefficient))
    reciprocal = 1.0 / (2.0 + less_one)
    size = -less_one * reciprocal
    return tl.where(coefficient > 0.0, size, -size), 4.0 * decay * reciprocal * reciprocal


@triton.jit
def _channel(parameters, at, there, mean_at, scale_at, inner, shift, x, COMPUTE: tl.constexpr):
    """A channel's log-probability in every component, and its derivatives in mean and log-scale."""
    mean = _planes(parameters, at, there, mean_at, inner, 0.0, COMPUTE) + shift
    log_scale = _planes(parameters, at, there, scale_at, inner, 0.0, COMPUTE)
    low = log_scale < _FLOOR
    log_prob, d_mean, d_log_scale = logistic_bin(mean, tl.where(low, _FLOOR, log_scale), x)
    return log_prob, d_mean, tl.where(low, 0.0, d_log_scale)


@triton.jit(do_not_specialize=["length", "chunks", "inner", "planes", "mixtures"])
def _nll(
    grad_output,  # (rows,) or None: not a backward
    parameters,  # (B, planes, inner): as the public function's docstring has them
    target,  # (B, 1 or 3, inner) uint8
    gradient,  # (B, planes, inner) or None
    loss_sum,  # (rows,) or None: the gradient alone
    partials,  # (rows, chunks) or None
    semaphores,  # (rows,) or None
    weight_tensor,  # () or None
    length: tl.int64,
    chunks: tl.int64,
    inner: tl.int64,
    planes: tl.int64,
    mixtures: tl.int64,
    weight: tl.float64,
    COLOUR: tl.constexpr,
    COMPONENTS: tl.constexpr,
    PIXELS: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    DENSE: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    row, chunk, length, step = program_segment(length, chunks, PIXELS, VECTOR, ALIGNED, INDEX)
    inner = multiple_of_vector(inner, INDEX, VECTOR, ALIGNED)
    planes, m = tl.cast(planes, INDEX), tl.cast(mixtures, INDEX)
    channels: tl.constexpr = 3 if COLOUR else 1
    scales = m + channels * m  # the first plane of log-scales; after them, the coefficients
    pairs = scales + channels * m
    factor = row_factor(grad_output, row, weight, weight_tensor, COMPUTE)
    total = tl.zeros((PIXELS, VECTOR), COMPUTE)
    k = tl.arange(0, COMPONENTS)[:, None, None]
    for start in range(chunk * (PIXELS * VECTOR), length, step):
        at, mask = locate(start, row, length, inner, planes, PIXELS, VECTOR, ALIGNED, DENSE, INDEX)
        of_target, _ = locate(start, row, length, inner, channels, PIXELS, VECTOR, ALIGNED, DENSE, INDEX)
        at = at[None, :, :] + k * inner
        there = (k < m) & mask[None, :, :]
        x = pixel(tl.load(target + of_target, mask=mask, other=0), COMPUTE)[None, :, :]

        logit = _planes(parameters, at, there, 0, inner, float("-inf"), COMPUTE)
        logit = tl.where(mask[None, :, :], logit, 0.0)
        joint = logit - tl.max(logit, axis=0)[None, :, :]
        prior = tl.exp(joint)
        prior_sum = tl.sum(prior, axis=0)[None, :, :]
        log_prob, d_mean, d_scale = _channel(parameters, at, there, m, scales, inner, 0.0, x, COMPUTE)
        joint += log_prob
        if COLOUR:
            red = x - 0.5
            x = pixel(tl.load(target + of_target + inner, mask=mask, other=0), COMPUTE)[None, :, :]
            to_green, slope = _couple(_planes(parameters, at, there, pairs, inner, 0.0, COMPUTE))
            log_prob, d_green, d_green_scale = _channel(
                parameters, at, there, 2 * m, scales + m, inner, to_green * red, x, COMPUTE
            )
            joint += log_prob
            d_to_green = d_green * red * slope
            green = x - 0.5
            x = pixel(tl.load(target + of_target + 2 * inner, mask=mask, other=0), COMPUTE)[None, :, :]
            from_red, slope_red = _couple(_planes(parameters, at, there, pairs + m, inner, 0.0, COMPUTE))
            from_green, slope_green = _couple(_planes(parameters, at, there, pairs + 2 * m, inner, 0.0, COMPUTE))
            log_prob, d_blue, d_blue_scale = _channel(
                parameters, at, there, 3 * m, scales + 2 * m, inner, from_red * red + from_green * green, x, COMPUTE
            )
            joint += log_prob
            d_from_red = d_blue * red * slope_red
            d_from_green = d_blue * green * slope_green

        best = tl.max(joint, axis=0)[None, :, :]
        joint = tl.exp(joint - best)
        joint_sum = tl.sum(joint, axis=0)[None, :, :]
        if loss_sum is not None:
            loss = tl.log(prior_sum) - best - tl.log(joint_sum)
            total += tl.where(mask, tl.reshape(loss, (PIXELS, VECTOR)), 0.0)
        share = joint * (-factor / joint_sum)  # minus the component's responsibility for the pixel
        _keep(gradient, at, there, 0, inner, prior * (factor / prior_sum) + share)
        _keep(gradient, at, there, m, inner, share * d_mean)
        _keep(gradient, at, there, scales, inner, share * d_scale)
        if COLOUR:
            _keep(gradient, at, there, 2 * m, inner, share * d_green)
            _keep(gradient, at, there, scales + m, inner, share * d_green_scale)
            _keep(gradient, at, there, 3 * m, inner, share * d_blue)
            _keep(gradient, at, there, scales + 2 * m, inner, share * d_blue_scale)
            _keep(gradient, at, there, pairs, inner, share * d_to_green)
            _keep(gradient, at, there, pairs + m, inner, share * d_from_red)
            _keep(gradient, at, there, pairs + 2 * m, inner, share * d_from_green)
    if loss_sum is not None:
        partial = tl.sum(tl.sum(total, axis=1), axis=0)
        last_block_reduction(partial, loss_sum, partials, semaphores, weight_tensor, weight, row, chunk, chunks)


def discretized_logistic_mixture_nll(
    parameters: Tensor,
    target: Tensor,
    mixtures: int,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
    with_grad: bool,
) -> tuple[Tensor, Tensor]:
    tile = triton.next_power_of_2(mixtures)
    config, sizes = plane_launch_config(parameters, reduction, tile, _ELEMENTS[parameters.itemsize], warps=8)
    total = summation(parameters, reduction, config)
    gradient = empty_gradient(parameters, reduction, with_grad)
    if not config.empty:
        weight = folded_weight(weight, reduction, parameters.shape[0])
        with on_device_of(parameters):
            _nll[config.grid](
                None, parameters, target, gradient if gradient.numel() else None, *total, weight_tensor,
                config.length, config.chunks, **sizes, mixtures=mixtures, weight=weight,
                COLOUR=target.shape[1] == 3, COMPONENTS=tile, **config.meta,
            )  # fmt: skip
    return total.loss, gradient


def discretized_logistic_mixture_nll_backward(
    grad_output: Tensor,
    parameters: Tensor,
    target: Tensor,
    mixtures: int,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> Tensor:
    tile = triton.next_power_of_2(mixtures)
    config, sizes = plane_launch_config(parameters, reduction, tile, _ELEMENTS[parameters.itemsize], warps=8)
    gradient = parameters.new_empty(parameters.shape)
    if not config.empty:
        weight = folded_weight(weight, reduction, parameters.shape[0])
        with on_device_of(parameters):
            _nll[config.grid](
                grad_output, parameters, target, gradient, None, None, None, weight_tensor,
                config.length, config.chunks, **sizes, mixtures=mixtures, weight=weight,
                COLOUR=target.shape[1] == 3, COMPONENTS=tile, **config.meta,
            )  # fmt: skip
    return gradient
