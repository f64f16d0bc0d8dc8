"""Laplace likelihood with one fixed scale."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss

define_loss("laplace_nll", "location", "Tensor target, float scale, bool full")


def laplace_nll(
    location: Tensor,
    target: Tensor,
    scale: float = 1.0,
    *,
    full: bool = False,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""Negative log-likelihood of a Laplace decoder with fixed scale: the absolute error over it, in nats.

    .. math:: -\log p(x \mid m) = \sum_j \frac{|m_j - x_j|}{b} \; [\; + \log 2 b \;]

    (The L1 reconstruction term of Larsen et al. 2016 and latent-diffusion autoencoders, as a likelihood.) One pass
    reads location and target and writes the gradient ``weight / scale * sign(location - target)``, 0 where both are
    equal; backward is free.

    Args:
        location: (B, ...) fp32, bf16, fp16 or fp64; any strides.
        target: same shape; uint8 (0..255, read as x/255), bool, or floating.
        scale: b, a positive finite number.
        full: add the constant in brackets.
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradient; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, the scale is not positive, or an option is unknown.
        TypeError: an unsupported dtype.

    An infinite or NaN location gives an infinite or NaN loss. Differentiating twice raises a RuntimeError; the
    "reference" backend can.

    >>> import torch
    >>> laplace_nll(torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.5]]), scale=0.5)
    tensor(2.)
    """
    _check.positive("scale", scale)
    location, target = _check.pixels("location", location, target)
    reduce = Reduce.of(reduction, weight, location)
    operators = _library.resolve(backend, location)
    if operators is None:
        return reference.laplace_nll(location, target, scale, full=full, reduction=reduction, weight=weight)
    return fused_loss(operators, "laplace_nll", (location, target), (scale, full), reduce)
