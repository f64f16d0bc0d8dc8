"""KL divergence of a diagonal Gaussian posterior from the standard normal prior, with free bits."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from .. import reference
from . import _check, _library
from ._autograd import first_order

_library.define(
    "gaussian_kl_groups(Tensor mu, Tensor logvar, int groups) -> Tensor",
    lambda mu, logvar, groups: mu.new_empty(groups, dtype=torch.promote_types(mu.dtype, torch.float32)),
    module="free_bits_kl",
)
_library.define(
    "gaussian_kl_groups_backward(Tensor grad_output, Tensor mu, Tensor logvar, int groups) -> (Tensor, Tensor)",
    lambda grad_output, mu, logvar, groups: (mu.new_empty(mu.shape), mu.new_empty(mu.shape)),
    module="free_bits_kl",
)


def free_bits_kl(
    mu: Tensor,
    logvar: Tensor,
    free_bits: float,
    *,
    groups: int | None = None,
    reduction: Literal["batchmean", "sum"] = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""KL(N(mu, exp(logvar)) || N(0, I)) in nats, of which each group of dimensions may carry some for nothing.

    .. math:: \sum_g \max\left(\lambda, \frac1B \sum_b \mathrm{KL}_{bg}\right), \quad
        \mathrm{KL}_{bg} = \tfrac12 \sum_{j \in g} \mu_{bj}^2 + \mathrm{expm1}(\log\sigma_{bj}^2) - \log\sigma_{bj}^2

    (Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", equation 15.) A group at
    or under the threshold is not pressed further towards the prior, so that it does not collapse early in training.
    The mean is one of the whole batch: under data parallelism, of each process's part. The gradient needs that mean
    first, so it is computed in backward, by a second pass.

    Args:
        mu: (B, ...) fp32, bf16, fp16 or fp64; any strides, so the halves of one packed head are taken as they are.
        logvar: same shape and type.
        free_bits: the threshold of a group, lambda >= 0, in nats (for all its name). 0 is ``gaussian_kl``.
        groups: how many equal runs of consecutive elements the flattened event is cut into. For (B, C, H, W), C is a
            group for each feature map, as in the paper. None: each element by itself.
        reduction: "batchmean" (the formula), or "sum" (times B). A mean over the batch has no value per sample.
        weight: a factor; a number, or a 0-d tensor on the device.
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, groups do not divide the event, or an option is out of range.
        TypeError: an unsupported dtype.

    Where a group's mean is exactly the threshold, its gradient is 0, as under it. Computed in fp32: a logvar over 88.7
    gives an infinite KL, a NaN gives NaN. Differentiating twice raises a RuntimeError; the "reference" backend can.

    >>> import torch
    >>> mu = torch.tensor([[2.0, 0.1], [0.0, 0.1]])
    >>> free_bits_kl(mu, torch.zeros(2, 2), 0.25)  # max(0.25, 1) + max(0.25, 0.005)
    tensor(1.2500)
    """
    if reduction not in ("batchmean", "sum"):
        raise ValueError(f"reduction must be 'batchmean' or 'sum' for a mean over the whole batch, not {reduction!r}")
    if not 0 <= free_bits < math.inf:
        raise ValueError(f"free_bits must be a finite number of nats, at least 0, not {free_bits}")
    mu, logvar = _check.latents(mu, logvar)
    factor, weight_tensor = _check.split_weight(weight, mu.device)
    event = math.prod(mu.shape[1:])
    if groups is not None and (groups < 1 or event % groups):
        raise ValueError(
            f"groups must divide the elements of the event, but {groups} does not divide {event}, "
            f"those of mu {tuple(mu.shape)}: choose a divisor, such as the number of channels"
        )
    operators = _library.resolve(backend, mu)
    if operators is None:
        return reference.free_bits_kl(mu, logvar, free_bits, groups=groups, reduction=reduction, weight=weight)
    batch = mu.shape[0]
    if reduction == "batchmean":
        factor = factor / batch if batch else math.nan
    arguments = mu, logvar, event if groups is None else groups, free_bits * batch, factor, weight_tensor
    if torch.is_grad_enabled() and (mu.requires_grad or logvar.requires_grad):
        loss: Tensor = _FreeBits.apply(operators.gaussian_kl_groups, operators.gaussian_kl_groups_backward, *arguments)
    else:
        loss = _loss(operators.gaussian_kl_groups, *arguments)[0]
    return loss


def _loss(
    forward: Any,
    mu: Tensor,
    logvar: Tensor,
    groups: int,
    allowance: float,
    factor: float,
    weight_tensor: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The loss, and the groups' sums over the batch, of which each has an ``allowance`` (B times the threshold)."""
    sums = forward(mu, logvar, groups)
    loss = sums.clamp_min(allowance).sum() * factor
    return loss if weight_tensor is None else (loss * weight_tensor).to(sums.dtype), sums


class _FreeBits(torch.autograd.Function):
    """All of it in one node: a small batch would pay more for nodes of max, sum and weight than for the passes."""

    @staticmethod
    def forward(ctx: Any, forward: Any, backward: Any, mu: Tensor, logvar: Tensor, *arguments: Any) -> Tensor:
        loss, sums = _loss(forward, mu, logvar, *arguments)
        groups, allowance, factor, weight_tensor = arguments
        ctx.operator, ctx.arguments = backward, (groups, allowance, factor)
        ctx.save_for_backward(mu, logvar, sums, weight_tensor)
        return loss

    @staticmethod
    @first_order
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        mu, logvar, sums, weight_tensor = ctx.saved_tensors
        groups, allowance, factor = ctx.arguments
        scale = grad_output * factor
        if weight_tensor is not None:
            scale = (scale * weight_tensor).to(sums.dtype)
        factors = scale.expand(sums.shape).masked_fill(sums <= allowance, 0.0)  # a NaN is not <=, and has its gradient
        return None, None, *ctx.operator(factors.contiguous(), mu, logvar, groups), *(None,) * 4
