"""Gaussian likelihood with a log-variance for each pixel: one pass writes the gradients of both predictions."""

import math
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ._pixel import Likelihood, backward, forward


@triton.jit
def _terms(mean, logvar, x, constant, _constant1):
    """Loss ``(((mean - x) / deviation)**2 + logvar) / 2 + constant``; its slopes in mean and logvar."""
    precision = tl.exp(-0.5 * logvar)  # of the deviation: that of the variance overflows sooner
    error = (mean - x) * precision
    square = error * error
    return 0.5 * (square + logvar) + constant, error * precision, 0.5 - 0.5 * square


def gaussian_logvar_nll(mean: Tensor, logvar: Tensor, target: Tensor, full: bool, *reduce: Any) -> tuple[Tensor, ...]:
    likelihood = Likelihood(_terms, 0.5 * math.log(2 * math.pi) if full else 0.0)
    return forward(likelihood, (mean, logvar), target, *reduce)


def gaussian_logvar_nll_backward(
    grad_output: Tensor,
    mean: Tensor,
    logvar: Tensor,
    target: Tensor,
    full: bool,  # noqa: ARG001  (the constant has no gradient)
    *reduce: Any,
) -> tuple[Tensor, ...]:
    likelihood = Likelihood(_terms)
    return backward(likelihood, grad_output, (mean, logvar), target, *reduce)
