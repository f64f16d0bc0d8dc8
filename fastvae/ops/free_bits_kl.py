"""KL divergence of a diagonal Gaussian posterior from the standard normal prior, with free bits."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, first_order

_ARGUMENTS = "Tensor mu, Tensor logvar, int groups, float threshold, int reduction, float weight, Tensor? weight_tensor"


def _fake(mu: Tensor, _logvar: Tensor, groups: int, *_: Any) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(mu.dtype, torch.float32)
    return mu.new_empty((), dtype=dtype), mu.new_empty(groups, dtype=dtype)


# The second result is each group's sum over the batch, which backward needs.
_library.define(f"free_bits_kl({_ARGUMENTS}) -> (Tensor, Tensor)", _fake, module="free_bits_kl")
_library.define(
    f"free_bits_kl_backward(Tensor grad_output, Tensor sums, {_ARGUMENTS}) -> (Tensor, Tensor)",
    lambda grad_output, sums, mu, *_: (mu.new_empty(mu.shape), mu.new_empty(mu.shape)),
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
    r"""KL(N(mu, exp(logvar)) || N(0, I)) in nats, where each group of dimensions has an allowance that costs nothing.

    .. math:: \sum_g \max\left(\lambda, \frac1B \sum_b \mathrm{KL}_{bg}\right), \quad
        \mathrm{KL}_{bg} = \tfrac12 \sum_{j \in g} \mu_{bj}^2 + \mathrm{expm1}(\log\sigma_{bj}^2) - \log\sigma_{bj}^2

    (Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", equation 15.) A group at
    or under the threshold is not pressed further towards the prior, so that it does not collapse early in training.
    The mean is over the whole batch; under data parallelism, over each process's part. The gradient needs that mean
    first, so it is computed in backward, by a second pass.

    Args:
        mu: (B, ...) fp32, bf16, fp16 or fp64; any strides, so the halves of one packed head are taken as they are.
        logvar: same shape and type.
        free_bits: the threshold of a group, lambda >= 0, in nats (for all its name). 0 is ``gaussian_kl``.
        groups: the number of equal runs of consecutive elements into which the flattened event is split. None: the
            size of dimension 1, so that each element of a vector (B, D) is a group, and each channel of a grid
            (B, C, H, W) with all of its places, as in the paper. ``mu[0].numel()`` makes each element a group.
        reduction: "batchmean" (the formula), or "sum" (times B). A mean over the batch has no value per sample.
        weight: a factor; a number, or a 0-d tensor on the device.
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, groups do not divide the event, or an option is out of range.
        TypeError: an unsupported dtype.

    The gradient of a group whose mean is exactly the threshold is 0, as under it. Computed in fp32: a logvar over 88.7
    gives an infinite KL, a NaN gives NaN. Differentiating twice raises a RuntimeError; the "reference" backend can.

    >>> import torch
    >>> mu = torch.tensor([[2.0, 0.1], [0.0, 0.1]])
    >>> free_bits_kl(mu, torch.zeros(2, 2), 0.25)  # max(0.25, 1) + max(0.25, 0.005)
    tensor(1.2500)
    """
    if reduction not in ("batchmean", "sum"):
        raise ValueError(f"reduction must be 'batchmean' or 'sum' for a mean over the whole batch, not {reduction!r}")
    _check.constant("free_bits", free_bits)
    if not 0 <= free_bits < math.inf:
        raise ValueError(f"free_bits must be a finite number of nats, at least 0, not {free_bits}")
    mu, logvar = _check.latents(mu, logvar)
    reduce = Reduce.of(reduction, weight, mu)
    event = math.prod(mu.shape[1:])
    if groups is None:
        groups = mu.shape[1] if mu.ndim > 1 else 1
    elif groups < 1 or event % groups:
        raise ValueError(
            f"groups must divide the elements of the event, but {groups} does not divide {event}, "
            f"those of mu {tuple(mu.shape)}: choose a divisor, such as the number of channels"
        )
    operators = _library.resolve(backend, mu)
    if operators is None:
        return reference.free_bits_kl(mu, logvar, free_bits, groups=groups, reduction=reduction, weight=weight)
    arguments = mu, logvar, groups, float(free_bits), *reduce
    if torch.is_grad_enabled() and (mu.requires_grad or logvar.requires_grad):
        loss: Tensor = _FreeBits.apply(operators.free_bits_kl, operators.free_bits_kl_backward, *arguments)
    else:
        loss = operators.free_bits_kl(*arguments)[0]
    return loss


class _FreeBits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        forward: Any,
        backward: Any,
        mu: Tensor,
        logvar: Tensor,
        groups: int,
        threshold: float,
        code: int,
        weight: float,
        weight_tensor: Tensor | None,
    ) -> Tensor:
        loss: Tensor
        loss, sums = forward(mu, logvar, groups, threshold, code, weight, weight_tensor)
        ctx.operator = backward
        ctx.constants = (groups, threshold, code, weight)
        ctx.save_for_backward(sums, mu, logvar, weight_tensor)
        return loss

    @staticmethod
    @first_order
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        sums, mu, logvar, weight_tensor = ctx.saved_tensors
        gradients = ctx.operator(grad_output, sums, mu, logvar, *ctx.constants, weight_tensor)
        return None, None, *gradients, *(None,) * 5
