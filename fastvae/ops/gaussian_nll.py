"""Gaussian likelihood with one fixed variance."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss

define_loss("gaussian_nll", "mean", "Tensor target, float variance, bool full")


def gaussian_nll(
    mean: Tensor,
    target: Tensor,
    variance: float = 1.0,
    *,
    full: bool = False,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""Negative log-likelihood of a Gaussian decoder with fixed variance: half the squared error over it, in nats.

    .. math:: -\log p(x \mid m) = \sum_j \frac{(m_j - x_j)^2}{2 \sigma^2} \; [\; + \tfrac12 \log 2 \pi \sigma^2 \;]

    (Kingma & Welling 2013, appendix C.2.) One pass reads mean and target and writes the gradient; backward is free.

    Args:
        mean: (B, ...) fp32, bf16, fp16 or fp64; any strides.
        target: same shape; uint8 (0..255, read as x/255), bool, or floating.
        variance: sigma squared, a positive finite number.
        full: add the constant in brackets, as ``torch.nn.GaussianNLLLoss`` does under the same name.
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradient; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, the variance is not positive, or an option is unknown.
        TypeError: an unsupported dtype.

    An infinite or NaN mean gives an infinite or NaN loss. Differentiating twice raises a RuntimeError; the
    "reference" backend can.

    >>> import torch
    >>> gaussian_nll(torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.5]]), variance=0.5)
    tensor(1.)
    """
    _check.positive("variance", variance)
    mean, target = _check.pixels("mean", mean, target)
    reduce = Reduce.of(reduction, weight, mean)
    operators = _library.resolve(backend, mean)
    if operators is None:
        return reference.gaussian_nll(mean, target, variance, full=full, reduction=reduction, weight=weight)
    return fused_loss(operators, "gaussian_nll", (mean, target), (variance, full), reduce)
