"""Elementary functions that the interpreter can run too: polynomials where Triton only has libdevice.

Each function computes in the type of its argument (fp32 or fp64), to an ulp or two, and passes on NaN and inf.
"""

import math

import triton
import triton.language as tl

# Taylor coefficients, the constant first. On each function's reduced range the first omitted term is below half an
# ulp, so a fitted polynomial would be no better.
_EXP_32 = tl.constexpr(tuple(1 / math.factorial(k) for k in range(1, 8)))  # (e**r - 1) / r, |r| <= ln(2)/2
_EXP_64 = tl.constexpr(tuple(1 / math.factorial(k) for k in range(1, 15)))
_ATANH_32 = tl.constexpr(tuple(2 / (2 * k + 1) for k in range(8)))  # 2 atanh(s) / s in s**2, s <= 1/3
_ATANH_64 = tl.constexpr(tuple(2 / (2 * k + 1) for k in range(17)))
_SIN_32 = tl.constexpr(tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(5)))  # sin(a) / a in a**2, a <= pi/4
_SIN_64 = tl.constexpr(tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(9)))
_COS_32 = tl.constexpr(tuple((-1) ** k / math.factorial(2 * k) for k in range(6)))  # cos(a) in a**2
_COS_64 = tl.constexpr(tuple((-1) ** k / math.factorial(2 * k) for k in range(10)))
_LOG2_E = tl.constexpr(1 / math.log(2))
_PIXEL_HIGH, _PIXEL_LOW = tl.constexpr(257 / 65536), tl.constexpr(1 / 255 - 257 / 65536)
_TWO_PI = tl.constexpr(2 * math.pi)


@triton.constexpr_function
def _degree(coefficients):
    return len(coefficients) - 1


@triton.jit
def horner(x, COEFFICIENTS: tl.constexpr):
    DEGREE: tl.constexpr = _degree(COEFFICIENTS)
    value = x * 0 + COEFFICIENTS[DEGREE]
    for k in tl.static_range(DEGREE):
        value = value * x + COEFFICIENTS[DEGREE - 1 - k]
    return value


@triton.jit
def _power_of_two(exponent, dtype: tl.constexpr):
    if dtype == tl.float64:
        value = ((exponent + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)
    else:
        value = ((exponent + 127) << 23).to(tl.float32, bitcast=True)
    return value


@triton.jit
def exp_expm1(x):
    """``(e**x, e**x - 1)``, each to its own relative precision, from one argument reduction."""
    if x.dtype == tl.float64:
        x = tl.where(x > 710.0, 710.0, tl.where(x < -746.0, -746.0, x))  # comparisons that leave NaN as it is
        count = tl.floor(x * _LOG2_E + 0.5)
        # ln 2 in two parts, of which count times the first is exact.
        rest = (x - count * 0.693147180369123816490) - count * 1.90821492927058770002e-10
        p = rest * horner(rest, _EXP_64)
    else:
        x = tl.where(x > 89.0, 89.0, tl.where(x < -104.0, -104.0, x))
        count = tl.floor(x * _LOG2_E + 0.5)
        rest = (x - count * 0.693145751953125) - count * 1.42860682030941723212e-6
        p = rest * horner(rest, _EXP_32)
    # 2**count in two factors: one alone would overflow, or be subnormal, where the result is neither.
    half = count.to(tl.int32) >> 1
    one, other = _power_of_two(half, x.dtype), _power_of_two(count.to(tl.int32) - half, x.dtype)
    exp = (p * one + one) * other
    expm1 = p * one * other + (one * other - 1.0)
    return exp, tl.where(x > 40.0, exp, expm1)


@triton.jit
def log1p_unit(y):
    """``log(1 + y)`` for y in [0, 1], as ``2 atanh(y / (2 + y))``, which keeps the digits of a small y."""
    s = y / (2.0 + y)
    return s * (horner(s * s, _ATANH_64) if y.dtype == tl.float64 else horner(s * s, _ATANH_32))


@triton.jit
def sincos_turns(turns):
    """``(sin, cos)(2 pi turns)`` for turns in [0, 1]. The quarter turn is taken off exactly, before 2 pi rounds."""
    count = tl.floor(turns * 4.0 + 0.5)
    angle = (turns - count * 0.25) * _TWO_PI
    square = angle * angle
    if turns.dtype == tl.float64:
        sine = angle * horner(square, _SIN_64)
        cosine = horner(square, _COS_64)
    else:
        sine = angle * horner(square, _SIN_32)
        cosine = horner(square, _COS_32)
    quarter = count.to(tl.int32)
    swap = (quarter & 1) == 1
    sin, cos = tl.where(swap, cosine, sine), tl.where(swap, sine, cosine)
    return tl.where((quarter & 2) == 2, -sin, sin), tl.where(((quarter + 1) & 2) == 2, -cos, cos)


@triton.jit
def pixel(x, dtype: tl.constexpr):
    """A target as a number: uint8 is read as ``x / 255``, equal to the bit to a correctly rounded division.

    In fp32, 1/255 is split into 257/65536, whose product with x is exact, and the rest: two operations, without the
    slow path of div.rn. A test covers all 256 values.
    """
    value = x.to(dtype)
    if x.dtype == tl.uint8:
        value = value / 255.0 if dtype == tl.float64 else value * _PIXEL_HIGH + value * _PIXEL_LOW
    return value
