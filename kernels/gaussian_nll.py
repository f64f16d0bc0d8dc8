"""Half squared error over a fixed variance: one pass reads mean and target and writes the gradient."""

import math
from typing import Any

import triton
import triton.language as tl  # noqa: F401  (Triton's interpreter demands it beside every jit function)
from torch import Tensor

from ._pixel import Likelihood, backward, forward


@triton.jit
def _terms(mean, x, precision, constant):
    """The loss ``(mean - x)**2 / (2 variance) + constant`` and its slope ``(mean - x) / variance``."""
    error = mean - x
    return error * error * (0.5 * precision) + constant, precision * error


def gaussian_nll(mean: Tensor, target: Tensor, variance: float, full: bool, *reduce: Any) -> tuple[Tensor, ...]:
    likelihood = Likelihood(_terms, 1.0 / variance, 0.5 * math.log(2 * math.pi * variance) if full else 0.0)
    return forward(likelihood, (mean,), target, *reduce)


def gaussian_nll_backward(
    grad_output: Tensor,
    mean: Tensor,
    target: Tensor,
    variance: float,
    full: bool,  # noqa: ARG001  (the constant has no gradient)
    *reduce: Any,
) -> Tensor:
    likelihood = Likelihood(_terms, 1.0 / variance)
    return backward(likelihood, grad_output, (mean,), target, *reduce)[0]
