"""The last layer of a Bernoulli decoder and its binary cross-entropy; runs the kernels of bernoulli_nll by bands."""

from torch import Tensor

from fastvae import reference

from . import _check, _library, _linear
from ._autograd import Reduce

_linear.define("bernoulli_nll", "")


def linear_bernoulli_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    reduction: _check.Reduction = "batchmean",
    loss_weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""``bernoulli_nll(torch.nn.functional.linear(hidden, weight, bias), target)`` without storing all logits.

    .. math:: -\log p(x \mid h) = \sum_j \max(l_j, 0) - l_j x_j + \log(1 + e^{-|l_j|}), \quad l = W h + b

    (Kingma & Welling 2013, appendix C.1.) The logits exist a band of columns at a time: (B, O) of them are never
    stored whole, nor is their gradient. The layer's gradients are computed with the loss, and backward is free.

    Forward and backward of 4096 x 512 -> 3072 hold 24 MB at most in fp32 on a CPU, of which 15 MB are the gradients
    that they return; torch.compile holds 65 MB, ``torch.nn.Linear`` and :func:`bernoulli_nll` 101 MB, in the same time
    as here (torch.compile takes 1.1 times as long, in bf16 1.4 times). In a batch that is small beside the layer,
    256 x 1024 -> 12288 or 128 x 400 -> 784, the weight's gradient fills the memory and there is nothing to save: take
    the two steps.

    Args:
        hidden: (B, H) fp32, bf16, fp16 or fp64; the last layer's input. Under autocast, of any type but fp64.
        weight: (O, H), of the same type as hidden (under autocast: any but fp64), as ``torch.nn.Linear.weight``.
        bias: (O,), likewise, or None.
        target: (B, O), or (B, ...) with O elements a row; uint8 (0..255, read as x/255), bool, or floating in [0, 1].
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        loss_weight: a factor folded into loss and gradients, called ``weight`` in the other operations (here that is
            the layer's); a number, or a 0-d tensor read on the device (torch.compile does not recompile when it
            changes).
        backend: "auto", "triton", "native" or "reference"; the matrix products are torch's in all of them.

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order over bands that depend on the shapes alone: the same
        bits as often as torch's matrix products give the same bits.

    Raises:
        ValueError: shapes or devices differ, a float target on the CPU leaves [0, 1] by more than 1e-5 (rounding), or
            an option is unknown.
        TypeError: an unsupported dtype, or two that differ outside autocast.

    For reduction "none", for fp16 and for a second backward the products are computed once more in backward. An
    infinite or NaN logit gives an infinite or NaN loss. Differentiating twice raises a RuntimeError; the "reference"
    backend can.

    >>> import torch
    >>> layer = torch.nn.Linear(3, 4)
    >>> hidden, target = torch.zeros(2, 3), torch.zeros(2, 2, 2)
    >>> loss = linear_bernoulli_nll(hidden, layer.weight, torch.zeros(4), target)
    >>> round(loss.item(), 4)  # 4 log 2
    2.7726
    """
    _check.unit_interval(target)
    hidden, target = _check.last_layer(hidden, weight, bias, target)
    reduce = Reduce.of(reduction, loss_weight, hidden, "loss_weight")
    operators = _library.resolve(backend, hidden)
    if operators is None:
        return reference.linear_bernoulli_nll(
            hidden, weight, bias, target, reduction=reduction, loss_weight=loss_weight
        )
    return _linear.evaluate("bernoulli_nll", operators, (hidden, weight, bias, target), (), reduce)
