"""Continuous Bernoulli likelihood, on logits."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss

define_loss("continuous_bernoulli_nll", "logits", "Tensor target")


def continuous_bernoulli_nll(
    logits: Tensor,
    target: Tensor,
    *,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""Negative log-likelihood of grey pixels in [0, 1] under a continuous Bernoulli decoder, in nats.

    .. math:: -\log p(x \mid l) = \sum_j \log\frac{e^{l_j} - 1}{l_j} - l_j x_j

    (Loaiza-Ganem & Cunningham 2019, equations 6 to 8, written in the logit: the log of the normalising constant,
    which the Bernoulli leaves out, and the softplus of the cross-entropy combine to one logarithm.) Exact through
    l = 0, where the normaliser is 0/0: by series there. One pass writes the gradient; backward is free.

    Args:
        logits: (B, ...) fp32, bf16, fp16 or fp64; any strides.
        target: same shape; uint8 (0..255, read as x/255), bool, or floating in [0, 1].
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradient; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, a float target on the CPU leaves [0, 1] by more than 1e-5 (rounding), or
            an option is unknown.
        TypeError: an unsupported dtype.

    A density, so the loss may be negative. An infinite or NaN logit gives an infinite or NaN loss. Differentiating
    twice raises a RuntimeError; the "reference" backend can.

    >>> import torch
    >>> continuous_bernoulli_nll(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.3, 1.0]]))  # log((1 - e**-2) / 2)
    tensor(-0.8386)
    """
    _check.unit_interval(target)
    logits, target = _check.pixels("logits", logits, target)
    reduce = Reduce.of(reduction, weight, logits)
    operators = _library.resolve(backend, logits)
    if operators is None:
        return reference.continuous_bernoulli_nll(logits, target, reduction=reduction, weight=weight)
    return fused_loss(operators, "continuous_bernoulli_nll", (logits, target), (), reduce)
