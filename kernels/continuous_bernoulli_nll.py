"""Continuous Bernoulli likelihood on logits: one pass reads logits and target and writes the gradient."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ._math import exp_expm1, horner
from ._pixel import Likelihood, backward, forward

# Series of log(sinh(a / 2) / (a / 2)), and of its derivative, in a**2.
_EVEN = tl.constexpr((1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800, 1 / 479001600))
_ODD = tl.constexpr((1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160))


@triton.jit
def _terms(logit, x, _constant0, _constant1):
    """The loss ``a y + log m(a)`` and its slope, with a = |logit|, m(a) = (1 - exp(-a)) / a, and y the pixel where the
    logit is negative, else its complement. Near 0 by series, where m is 0 / 0.
    """
    negative = logit < 0.0
    a = tl.where(negative, -logit, logit)
    y = tl.where(negative, x, 1.0 - x)
    near = a < (0.25 if a.dtype == tl.float64 else 1.0)
    square = a * a
    decay, less_one = exp_expm1(-a)
    inverse = 1.0 / tl.where(near, 1.0, a)
    rest = tl.where(near, 1.0, -less_one)
    log_mass = tl.where(near, square * horner(square, _EVEN) - 0.5 * a, tl.log(rest * inverse))
    derivative = tl.where(near, a * horner(square, _ODD) - 0.5, decay / rest - inverse)
    slope = y + derivative
    return a * y + log_mass, tl.where(negative, -slope, slope)


def continuous_bernoulli_nll(logits: Tensor, target: Tensor, *reduce: Any) -> tuple[Tensor, ...]:
    likelihood = Likelihood(_terms)
    return forward(likelihood, (logits,), target, *reduce)


def continuous_bernoulli_nll_backward(grad_output: Tensor, logits: Tensor, target: Tensor, *reduce: Any) -> Tensor:
    likelihood = Likelihood(_terms)
    return backward(likelihood, grad_output, (logits,), target, *reduce)[0]
