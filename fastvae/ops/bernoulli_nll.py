"""Binary cross-entropy on logits."""

import torch
from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss
from .noise import KEY_SCHEMA, Noise, pixel_key_arguments

define_loss("bernoulli_nll", "logits", f"Tensor target, {KEY_SCHEMA}")


def bernoulli_nll(
    logits: Tensor,
    target: Tensor,
    *,
    binarize: Noise | None = None,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""Negative log-likelihood of pixels in [0, 1] under a Bernoulli decoder, from its logits, in nats.

    .. math:: -\log p(x \mid l) = \sum_j \max(l_j, 0) - l_j x_j + \log(1 + e^{-|l_j|})

    (Kingma & Welling 2013, appendix C.1, in the form that does not overflow.) One pass reads logits and target and
    writes the gradient ``weight * (sigmoid(logits) - target)``; backward is then free.

    Args:
        logits: (B, ...) fp32, bf16, fp16 or fp64; any strides.
        target: same shape; uint8 (0..255, read as x/255), bool, or floating in [0, 1].
        binarize: draw the pixels of a uint8 target black or white, white with probability x/255, by this key: dynamic
            binarisation (Burda et al. 2016, section 5), inside the pass. The same as a target of
            ``binarize.binarize(target)``. The key of the latents may be used, whose noise is independent of it.
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradient; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, a float target on the CPU leaves [0, 1] by more than 1e-5 (rounding), or
            an option is unknown.
        TypeError: an unsupported dtype, or a floating target to binarize.

    An infinite or NaN logit gives an infinite or NaN loss. Differentiating twice raises a RuntimeError; the
    "reference" backend can.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 2.0], [-3.0, 17.0]], requires_grad=True)
    >>> loss = bernoulli_nll(logits, torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8))
    >>> round(loss.item(), 4)
    10.4343
    """
    if binarize is not None and target.dtype not in (torch.uint8, torch.bool):
        raise TypeError(
            f"target must be uint8 (0..255) to be binarized, not {target.dtype}: pass the pixels themselves"
        )
    _check.unit_interval(target)
    logits, target = _check.pixels("logits", logits, target)
    reduce = Reduce.of(reduction, weight, logits)
    operators = _library.resolve(backend, logits)
    if operators is None:
        target = target if binarize is None else binarize.binarize(target)
        return reference.bernoulli_nll(logits, target, reduction=reduction, weight=weight)
    state, *place = (None, 0, 0) if binarize is None else pixel_key_arguments(binarize, logits)
    return fused_loss(operators, "bernoulli_nll", (logits, target, state), tuple(place), reduce)
