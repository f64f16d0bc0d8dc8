"""Binary cross-entropy on logits: one pass reads logits and target and writes the gradient (9 bytes in fp32)."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ._math import log1p_unit
from ._noise import Noise
from ._pixel import Likelihood, backward, forward


@triton.jit
def _terms(logit, x, _constant0, _constant1):
    """The loss ``max(l, 0) - l*x + log1p(exp(-|l|))`` and its slope ``sigmoid(l) - x``."""
    decay = tl.exp(-tl.abs(logit))
    reciprocal = 1.0 / (1.0 + decay)
    # A NaN logit fails both comparisons, and is kept by l*x and by decay.
    loss = tl.where(logit > 0.0, logit, 0.0) - logit * x + log1p_unit(decay)
    return loss, tl.where(logit >= 0.0, reciprocal, decay * reciprocal) - x


def bernoulli_nll(
    logits: Tensor, target: Tensor, state: Tensor | None, row_offset: int, stream: int, *reduce: Any
) -> tuple[Tensor, ...]:
    likelihood = Likelihood(_terms, noise=Noise(None, state, row_offset, stream))
    return forward(likelihood, (logits,), target, *reduce)


def bernoulli_nll_backward(
    grad_output: Tensor,
    logits: Tensor,
    target: Tensor,
    state: Tensor | None,
    row_offset: int,
    stream: int,
    *reduce: Any,
) -> Tensor:
    likelihood = Likelihood(_terms, noise=Noise(None, state, row_offset, stream))
    return backward(likelihood, grad_output, (logits,), target, *reduce)[0]
