"""Absolute error over a fixed scale: one pass reads location and target and writes the gradient."""

import math
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ._pixel import Likelihood, backward, forward


@triton.jit
def _terms(location, x, precision, constant):
    """The loss ``|location - x| / scale + constant`` and its slope ``sign(location - x) / scale``."""
    error = location - x
    sign = tl.where(error > 0.0, 1.0, tl.where(error < 0.0, -1.0, error))  # a NaN stays
    return tl.abs(error) * precision + constant, precision * sign


def laplace_nll(location: Tensor, target: Tensor, scale: float, full: bool, *reduce: Any) -> tuple[Tensor, ...]:
    likelihood = Likelihood(_terms, 1.0 / scale, math.log(2 * scale) if full else 0.0)
    return forward(likelihood, (location,), target, *reduce)


def laplace_nll_backward(
    grad_output: Tensor,
    location: Tensor,
    target: Tensor,
    scale: float,
    full: bool,  # noqa: ARG001  (the constant has no gradient)
    *reduce: Any,
) -> Tensor:
    likelihood = Likelihood(_terms, 1.0 / scale)
    return backward(likelihood, grad_output, (location,), target, *reduce)[0]
