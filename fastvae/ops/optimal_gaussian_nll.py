"""Gaussian likelihood with the variance that fits the batch best (sigma-VAE): the kernels of ``gaussian_nll``."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import first_order


def optimal_gaussian_nll(
    mean: Tensor,
    target: Tensor,
    *,
    full: bool = False,
    reduction: Literal["batchmean", "sum"] = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""Negative log-likelihood of a Gaussian decoder whose one variance is the batch's mean squared error, in nats.

    .. math:: -\log p(x \mid m) = \frac{D}{2} \left( \log \sigma^{*2} \; [\; + 1 + \log 2\pi \;] \right),
        \quad \sigma^{*2} = \frac{1}{B D} \sum_{b,j} (m_{bj} - x_{bj})^2

    (Rybkin et al. 2021, "Simple and Effective VAE Training with Calibrated Decoders", equations 5 and 6: the optimal
    sigma-VAE.) There is no variance to tune or to learn. It is that of the whole batch; under data parallelism, of each
    process's part. Its gradient, ``weight * (m - x) / sigma**2 / B``, needs the whole sum first, so it is
    computed in backward, by a second pass.

    Args:
        mean: (B, ...) fp32, bf16, fp16 or fp64; any strides.
        target: same shape; uint8 (0..255, read as x/255), bool, or floating.
        full: add the constant in brackets.
        reduction: "batchmean" (per sample), or "sum" (times B). A variance that the batch shares has no value per
            sample.
        weight: a factor; a number, or a 0-d tensor on the device.
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, or the reduction is neither of the two.
        TypeError: an unsupported dtype.

    A perfect fit has an infinite likelihood: the loss is -inf, the gradient NaN. Differentiating twice raises a
    RuntimeError; the "reference" backend can.

    >>> import torch
    >>> optimal_gaussian_nll(torch.zeros(2, 4), torch.full((2, 4), 0.5)).item()  # 4 / 2 * log(1 / 4)
    -2.77258...
    """
    if reduction not in ("batchmean", "sum"):
        raise ValueError(f"reduction must be 'batchmean' or 'sum' for a variance of the whole batch, not {reduction!r}")
    mean, target = _check.pixels("mean", mean, target)
    _check.split_weight(weight, mean)
    operators = _library.resolve(backend, mean)
    if operators is None:
        return reference.optimal_gaussian_nll(mean, target, full=full, reduction=reduction, weight=weight)
    scale = 0.5 * math.prod(mean.shape[1:]) * (mean.shape[0] if reduction == "sum" else 1)
    if torch.is_grad_enabled() and mean.requires_grad:
        loss: Tensor = _LogVariance.apply(operators.gaussian_nll, operators.gaussian_nll_backward, mean, target)
    else:
        loss = torch.log(operators.gaussian_nll(mean, target, *_SQUARES, False)[0] / mean.numel())
    if full:
        loss = loss + (1 + math.log(2 * math.pi))
    return loss * (scale * weight)


# The arguments by which gaussian_nll is the sum of squared errors: variance 1/2, no constant, summed, unweighted.
_SQUARES = (0.5, False, 1, 1.0, None)


class _LogVariance(torch.autograd.Function):
    """The logarithm of the mean squared error. Its gradient needs the whole mean first, so backward computes it."""

    @staticmethod
    def forward(ctx: Any, forward: Any, backward: Any, mean: Tensor, target: Tensor) -> Tensor:
        squares = forward(mean, target, *_SQUARES, False)[0]
        ctx.operator = backward
        ctx.save_for_backward(mean, target, squares)
        return torch.log(squares / mean.numel())

    @staticmethod
    @first_order
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        mean, target, squares = ctx.saved_tensors
        return None, None, ctx.operator(grad_output / squares, mean, target, *_SQUARES), None
