"""Gaussian likelihood with a learned log-variance: one for all pixels, or one for each.

With one for all pixels, it runs the kernels of ``gaussian_nll``, weighted on the device.
"""

import math

import torch
from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss

define_loss("gaussian_logvar_nll", "mean logvar", "Tensor target, bool full")


def gaussian_logvar_nll(
    mean: Tensor,
    logvar: Tensor,
    target: Tensor,
    *,
    full: bool = False,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""Negative log-likelihood of a Gaussian decoder that learns its variance, in nats.

    .. math:: -\log p(x \mid m, s) = \sum_j \tfrac12 \left( (m_j - x_j)^2 e^{-s_j} + s_j \; [\; + \log 2\pi \;] \right)

    (Kingma & Welling 2013, appendix C.2.) With a 0-d ``logvar``, one parameter learned for all pixels (Rybkin et al.
    2021, section 3.1), or with a head of the decoder that gives each pixel its own. One pass writes the gradients of
    both; backward is free.

    Args:
        mean: (B, ...) fp32, bf16, fp16 or fp64; any strides.
        logvar: log of the variance: same shape and type as ``mean``, or 0-d, of any floating type.
        target: the shape of ``mean``; uint8 (0..255, read as x/255), bool, or floating.
        full: add the constant in brackets.
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradients; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, or an option is unknown.
        TypeError: an unsupported dtype.

    The error is divided by the deviation before it is squared, in fp32: a logvar down to -177 does not overflow by
    itself. Infinite or NaN inputs give an infinite or NaN loss. Differentiating twice raises a RuntimeError; the
    "reference" backend can.

    >>> import torch
    >>> logvar = torch.zeros((), requires_grad=True)  # one for all pixels, to be learned
    >>> loss = gaussian_logvar_nll(torch.zeros(1, 4), logvar, torch.ones(1, 4))
    >>> loss.backward()
    >>> loss.item(), logvar.grad.item()  # 4 * (1 + 0) / 2, and 4 * (1 - 1) / 2
    (2.0, 0.0)
    """
    mean, target = _check.pixels("mean", mean, target)
    _check.tensors(logvar=logvar)
    shared = logvar.ndim == 0
    if not shared:
        logvar, _ = _check.pixels("logvar", logvar, target)
        _check.same_dtype("mean", mean, "logvar", logvar)
    elif logvar.device != mean.device:
        raise ValueError(f"logvar is on {logvar.device}, but mean is on {mean.device}: move one")
    reduce = Reduce.of(reduction, weight, mean)
    operators = _library.resolve(backend, mean)
    if operators is None:
        return reference.gaussian_logvar_nll(mean, logvar, target, full=full, reduction=reduction, weight=weight)
    if shared:
        return _shared(operators, mean, logvar, target, full, reduce)
    return fused_loss(operators, "gaussian_logvar_nll", (mean, logvar, target), (full,), reduce)


def _shared(operators: object, mean: Tensor, logvar: Tensor, target: Tensor, full: bool, reduce: Reduce) -> Tensor:
    s = logvar.to(torch.float64 if mean.dtype == torch.float64 else torch.float32)
    weight = s.new_full((), reduce.weight) if reduce.weight_tensor is None else reduce.weight_tensor
    scaled = Reduce(reduce.code, 1.0, weight * torch.exp(-s.detach()))
    error = fused_loss(operators, "gaussian_nll", (mean, target), (1.0, False), scaled)
    # In error, e**-s is a constant. This factor is 1, and has the derivatives in s.
    error = error * torch.exp(s.detach() - s)
    pixels = mean.numel() if reduce.code == 1 else math.prod(mean.shape[1:])
    return error + weight * (0.5 * pixels) * (s + (math.log(2 * math.pi) if full else 0.0))
