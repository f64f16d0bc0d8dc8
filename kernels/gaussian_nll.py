"""Half squared error over a fixed variance: one pass reads mean and target and writes the gradient."""

import math

import triton
import triton.language as tl  # noqa: F401  (Triton's interpreter demands it beside every jit function)
from torch import Tensor

from ._pixel import Likelihood, backward, forward


@triton.jit
def _terms(mean, x, precision, constant):
    """The loss ``(mean - x)**2 / (2 variance) + constant`` and its slope ``(mean - x) / variance``."""
    error = mean - x
    return error * error * (0.5 * precision) + constant, precision * error


def gaussian_nll(
    mean: Tensor,
    target: Tensor,
    variance: float,
    full: bool,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
    with_grad: bool,
) -> tuple[Tensor, ...]:
    constant = 0.5 * math.log(2 * math.pi * variance) if full else 0.0
    likelihood = Likelihood(_terms, 1.0 / variance, constant)
    return forward(likelihood, (mean,), target, reduction, weight, weight_tensor, with_grad)


def gaussian_nll_backward(
    grad_output: Tensor,
    mean: Tensor,
    target: Tensor,
    variance: float,
    full: bool,  # noqa: ARG001  (the constant has no gradient; the argument is the schema's)
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> Tensor:
    likelihood = Likelihood(_terms, 1.0 / variance)
    return backward(likelihood, grad_output, (mean,), target, reduction, weight, weight_tensor)[0]
