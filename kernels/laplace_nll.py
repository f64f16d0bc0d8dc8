"""Absolute error over a fixed scale: one pass reads location and target and writes the gradient."""

import math

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


def laplace_nll(
    location: Tensor,
    target: Tensor,
    scale: float,
    full: bool,
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
    with_grad: bool,
) -> tuple[Tensor, ...]:
    return forward(
        Likelihood(_terms, 1.0 / scale, math.log(2 * scale) if full else 0.0),
        (location,),
        target,
        reduction,
        weight,
        weight_tensor,
        with_grad,
    )


def laplace_nll_backward(
    grad_output: Tensor,
    location: Tensor,
    target: Tensor,
    scale: float,
    full: bool,  # noqa: ARG001  (the constant has no gradient; the argument is the schema's)
    reduction: int,
    weight: float,
    weight_tensor: Tensor | None,
) -> Tensor:
    return backward(
        Likelihood(_terms, 1.0 / scale), grad_output, (location,), target, reduction, weight, weight_tensor
    )[0]
