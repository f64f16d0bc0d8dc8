"""Discretised logistic likelihood of 8-bit pixels."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss

define_loss("discretized_logistic_nll", "mean log_scale", "Tensor target")


def discretized_logistic_nll(
    mean: Tensor,
    log_scale: Tensor,
    target: Tensor,
    *,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""Negative log-probability of 8-bit pixels under a logistic for each, integrated over the pixel's bin, in nats.

    .. math:: -\log P(x) = -\sum_j \log\left[ \sigma\!\left(\frac{x_j + 1/510 - m_j}{e^{s_j}}\right) -
        \sigma\!\left(\frac{x_j - 1/510 - m_j}{e^{s_j}}\right) \right]

    (Kingma et al. 2016, section 5.2 and appendix; Salimans et al. 2017, equation 2.) The bins of 0 and 255 reach to
    infinity, so the 256 probabilities sum to one: a true code length, see :func:`fastvae.ops.bits_per_dimension`. The
    logarithm is exact into the tails. One pass writes the gradients of mean and log_scale; backward is free.

    Args:
        mean: (B, ...) in units of pixels read as x/255; fp32, bf16, fp16 or fp64; any strides.
        log_scale: log of the logistic's scale, in the same units; same shape and type. (For a network that works in
            pixels scaled to [-1, 1], pass ``(mean + 1) / 2`` and ``log_scale - log 2``.)
        target: same shape, uint8, or bool for black and white.
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradients; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, or an option is unknown.
        TypeError: an unsupported dtype, or a target that is not uint8.

    An infinite or NaN mean or log_scale gives an infinite or NaN loss. Differentiating twice raises a RuntimeError;
    the "reference" backend can.

    >>> import torch
    >>> target = torch.tensor([[128]], dtype=torch.uint8)
    >>> nll = discretized_logistic_nll(torch.tensor([[0.5]]), torch.tensor([[-3.0]]), target)
    >>> round(nll.item(), 4)  # a bin of 1/255 where the density is near e**3 / 4
    3.9281
    """
    target = _check.eight_bits(target)
    mean, target = _check.pixels("mean", mean, target)
    log_scale, _ = _check.pixels("log_scale", log_scale, target)
    _check.same_dtype("mean", mean, "log_scale", log_scale)
    reduce = Reduce.of(reduction, weight, mean)
    operators = _library.resolve(backend, mean)
    if operators is None:
        return reference.discretized_logistic_nll(mean, log_scale, target, reduction=reduction, weight=weight)
    return fused_loss(operators, "discretized_logistic_nll", (mean, log_scale, target), (), reduce)
