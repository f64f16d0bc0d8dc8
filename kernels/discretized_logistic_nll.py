"""Discretised logistic likelihood of 8-bit pixels: one pass writes the gradients of both predictions."""

from typing import Any

import triton
import triton.language as tl  # noqa: F401  (Triton's interpreter demands it beside every jit function)
from torch import Tensor

from ._logistic import logistic_bin
from ._pixel import Likelihood, backward, forward


@triton.jit
def _terms(mean, log_scale, x, _constant0, _constant1):
    log_prob, d_mean, d_log_scale = logistic_bin(mean, log_scale, x)
    return -log_prob, -d_mean, -d_log_scale


# One vector a thread: two spill in bf16 (sm_90). With 150 registers a thread, programs of 4 warps leave 12 warps an SM.
_LIKELIHOOD = Likelihood(_terms, max_tile=128)


def discretized_logistic_nll(mean: Tensor, log_scale: Tensor, target: Tensor, *reduce: Any) -> tuple[Tensor, ...]:
    return forward(_LIKELIHOOD, (mean, log_scale), target, *reduce)


def discretized_logistic_nll_backward(
    grad_output: Tensor, mean: Tensor, log_scale: Tensor, target: Tensor, *reduce: Any
) -> tuple[Tensor, ...]:
    return backward(_LIKELIHOOD, grad_output, (mean, log_scale), target, *reduce)
