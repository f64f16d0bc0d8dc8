"""The last layer of a Gaussian decoder and its squared error; runs the kernels of gaussian_nll by bands."""

from torch import Tensor

from fastvae import reference

from . import _check, _library, _linear
from ._autograd import Reduce

_linear.define("gaussian_nll", "float variance, bool full, ")


def linear_gaussian_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    variance: float = 1.0,
    *,
    full: bool = False,
    reduction: _check.Reduction = "batchmean",
    loss_weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""``gaussian_nll(torch.nn.functional.linear(hidden, weight, bias), target, variance)`` without storing all means.

    .. math:: -\log p(x \mid h) = \sum_j \frac{(m_j - x_j)^2}{2 \sigma^2}
        \; [\; + \tfrac12 \log 2 \pi \sigma^2 \;], \quad m = W h + b

    (Kingma & Welling 2013, appendix C.2.) The means exist a band of columns at a time: (B, O) of them are never
    stored whole, nor is their gradient. The layer's gradients are computed with the loss, and backward is free.

    It saves memory where :func:`linear_bernoulli_nll` does, in a batch that is large beside the layer.

    Args:
        hidden: (B, H) fp32, bf16, fp16 or fp64; the last layer's input. Under autocast, of any type but fp64.
        weight: (O, H), of the same type as hidden (under autocast: any but fp64), as ``torch.nn.Linear.weight``.
        bias: (O,), likewise, or None.
        target: (B, O), or (B, ...) with O elements a row; uint8 (0..255, read as x/255), bool, or floating.
        variance: sigma squared, a positive finite number.
        full: add the constant in brackets, as ``torch.nn.GaussianNLLLoss`` does under the same name.
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        loss_weight: a factor folded into loss and gradients, called ``weight`` in the other operations (here that is
            the layer's); a number, or a 0-d tensor read on the device (torch.compile does not recompile when it
            changes).
        backend: "auto", "triton", "native" or "reference"; the matrix products are torch's in all of them.

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order over bands that depend on the shapes alone: the same
        bits as often as torch's matrix products give the same bits.

    Raises:
        ValueError: shapes or devices differ, the variance is not positive, or an option is unknown.
        TypeError: an unsupported dtype, or two that differ outside autocast.

    For reduction "none", for fp16 and for a second backward the products are computed once more in backward. An
    infinite or NaN mean gives an infinite or NaN loss. Differentiating twice raises a RuntimeError; the "reference"
    backend can.

    >>> import torch
    >>> weight, target = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0, 1.0]])
    >>> linear_gaussian_nll(torch.ones(1, 1), weight, None, target, variance=0.5)
    tensor(2.)
    """
    _check.positive("variance", variance)
    hidden, target = _check.last_layer(hidden, weight, bias, target)
    reduce = Reduce.of(reduction, loss_weight, hidden, "loss_weight")
    operators = _library.resolve(backend, hidden)
    if operators is None:
        return reference.linear_gaussian_nll(
            hidden, weight, bias, target, variance, full=full, reduction=reduction, loss_weight=loss_weight
        )
    return _linear.evaluate("gaussian_nll", operators, (hidden, weight, bias, target), (variance, full), reduce)
