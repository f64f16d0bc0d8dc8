"""Categorical likelihood: the cross-entropy of class logits, many predictions for each pixel."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss

define_loss("categorical_nll", "logits", "Tensor target")


def categorical_nll(
    logits: Tensor,
    target: Tensor,
    *,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""Negative log-likelihood of classes under softmax(logits), in nats: cross-entropy with whole-number targets.

    .. math:: -\log p(x \mid l) = \sum_j \Big( \log \sum_k e^{l_{kj}} - l_{x_j j} \Big)

    (The 256-way softmax of van den Oord et al. 2016, Pixel Recurrent Neural Networks, section 3.4.) The maximum is
    subtracted first. One pass reads logits and target and writes the gradient, ``weight * (softmax - onehot)``;
    backward is free.

    Args:
        logits: (B, K, ...) fp32, bf16, fp16 or fp64, the K classes in dimension 1, as in
            ``torch.nn.functional.cross_entropy``; any strides.
        target: (B, ...) class indices 0..K-1, uint8 (an 8-bit image as it is, for K = 256),
            int64, or bool for the classes 0 and 1.
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradient; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, an index is not a class, or an option is unknown.
        TypeError: an unsupported dtype.

    An index outside 0..K-1 is an error on the CPU, before anything is computed. On an accelerator, where looking would
    stall the queue, and in a compiled graph, it makes the loss NaN and the gradient of its pixel too. A logit of -inf
    is a probability of 0: the loss is inf if it is the target's. A NaN or +inf among a pixel's logits, or -inf for all
    of them, makes the loss NaN. Differentiating twice raises a RuntimeError; the "reference" backend can.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 0.0, 2.0]]).log()  # (B, K) = (1, 3): probabilities 0, 0 and 1
    >>> categorical_nll(logits, torch.tensor([2]))
    tensor(0.)
    >>> categorical_nll(torch.zeros(1, 256), torch.tensor([7], dtype=torch.uint8))  # log 256
    tensor(5.5452)
    """
    logits, target = _check.classes(logits, target)
    reduce = Reduce.of(reduction, weight, logits)
    operators = _library.resolve(backend, logits)
    if operators is None:
        return reference.categorical_nll(logits, target, reduction=reduction, weight=weight)
    return fused_loss(operators, "categorical_nll", (logits, target), (), reduce)
