"""The probability of a bin of 8-bit pixels under a logistic distribution, as its logarithm and derivatives.

Salimans et al. 2017, eq. 2, in units of pixels read as x / 255: the bin of x is x +- 1/510, and those of 0 and 1 reach
to infinity. With a and b the far and near ends of the bin in scales from the mean, sigmoid(a) - sigmoid(b) is
sigmoid(a) * sigmoid(-b) * (1 - exp(b - a)), in which nothing cancels. csrc/logistic.h has the same steps.
"""

import math

import triton
import triton.language as tl

from ._math import exp_expm1

_HALF = tl.constexpr(1 / 510)
_LOG_255 = tl.constexpr(math.log(255))


@triton.jit
def logistic_bin(mean, log_scale, x):
    """``(log_prob, d_mean, d_log_scale)`` of pixel x (over 255): the log-probability and its two derivatives.

    Any scale goes, but exp(-log_scale) has to be finite; a mean or a log-scale that is not gives NaN.
    """
    side = tl.where(x < _HALF, -1.0, tl.where(x > 1.0 - _HALF, 1.0, 0.0)).to(x.dtype)
    edge = side != 0.0
    inverse = tl.exp(-log_scale)
    # Mirrored so that a >= 0; the bin of 0 reaches to infinity on the side that a is on, as that of 1 does.
    error = x - mean
    sign = tl.where(edge, side, tl.where(error < 0.0, -1.0, 1.0))
    away = sign * error
    a = (away + _HALF) * inverse
    b = (away - _HALF) * inverse
    outside = b > 0.0
    width = 2.0 * _HALF * inverse
    width = tl.where(width > 1e-30, width, 1e-30)
    decay, less_one = exp_expm1(-width)
    decay, rest = tl.where(edge, 0.0, decay), tl.where(edge, 1.0, -less_one)  # exp(b - a), and 1 less it
    near = tl.exp(-tl.abs(b))
    far = decay * tl.where(outside, near, 1.0 / tl.where(near > 1e-30, near, 1e-30))  # exp(-a)
    # For a wide scale the ratio is divided by the width, so that nothing underflows before its logarithm is taken.
    wide = tl.where(edge, 2.0, width) < 1.0
    divisor = tl.where(wide, width, 1.0)
    excess = far * near + (far + near)
    shared = 1.0 / (divisor * (1.0 + excess))
    ratio = rest * shared
    quotient = divisor * shared  # quotient: 1 / ((1 + far) * (1 + near))
    offset = tl.where(wide, -log_scale - _LOG_255, 0.0)  # log(width)
    # The digits that the ratio of a probability near 1 has rounded away.
    lost = tl.where(ratio > tl.where(wide, 2.0, 0.5), (1.0 - ratio) - (decay + excess) * quotient, 0.0)
    log_prob = (offset - tl.where(outside, b, 0.0)) + (tl.log(ratio) + lost) + 0.0 * (mean + log_scale)
    # sigmoid(b) - sigmoid(-a) and b sigmoid(b) - a sigmoid(-a), each over the common denominator.
    above = tl.where(outside, 1.0, near)
    slope = (above - far * tl.where(outside, near, 1.0)) * quotient
    d_mean = sign * slope * inverse
    held = tl.where(a < 200.0, a, 200.0)  # where far is 0, and a may be infinite
    d_log_scale = (b * above * (1.0 + far) - held * far * (1.0 + near)) * quotient - width * decay / rest
    return log_prob, d_mean, d_log_scale
