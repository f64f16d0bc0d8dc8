"""Binary cross-entropy for code whose decoder returns probabilities.

The fused operation needs logits. Recomputed from the probabilities they would be wrong where it matters: in fp32
``sigmoid(17)`` is 1. So a patched forward pass is watched, and the argument of the sigmoid that made the probabilities
is remembered for as long as its result lives.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from fastvae import ops

_SIGMOIDS = (torch.sigmoid, torch.special.expit, Tensor.sigmoid)  # nn.Sigmoid and F.sigmoid call one of these


class _Argument(NamedTuple):
    """The argument of a sigmoid, with torch's counts of in-place changes to it and to the result at that time."""

    logits: Tensor
    versions: tuple[int, int]


_known = WeakIdKeyDictionary()  # a sigmoid's result -> its _Argument


class _Watch(TorchFunctionMode):
    """Remembers the last sigmoid computed inside. Earlier ones are gates, and would only be kept from being freed."""

    last: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _SIGMOIDS and not kwargs and not result.is_inference():
            if self.last is not None:
                _known.pop(self.last, None)
            _known[result] = _Argument(args[0], (args[0]._version, result._version))
            self.last = result
        return result


def watched(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a forward pass so that its last sigmoid is remembered."""

    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with _Watch():
            return forward(*args, **kwargs)

    return wrapper


def _logits_of(probabilities: Tensor) -> Tensor | None:
    """Return the logits of probabilities from a watched forward pass, in their shape; None if that is not certain."""
    whole = probabilities if probabilities._base is None else probabilities._base
    known: _Argument | None = _known.get(whole)
    if known is None or known.versions != (known.logits._version, whole._version):
        return None
    # A reshaped view holds the same elements in the same order; a slice or a transposed view does not.
    same = whole.numel() == probabilities.numel() and whole.is_contiguous() and probabilities.is_contiguous()
    return known.logits.reshape(probabilities.shape) if same else None


def fits(output: Tensor, target: Tensor) -> bool:
    """Return True if the fused terms read this target as the eager code does.

    They read integers as x/255, have no gradient for a target, and would round a target of higher precision.
    """
    return target.dtype in (torch.float32, output.dtype) and output.is_floating_point() and not target.requires_grad


def bernoulli(probabilities: Tensor, target: Tensor, *, reduction: Literal["batchmean", "sum", "none"]) -> Tensor:
    """Return the binary cross-entropy of ``probabilities`` and ``target``, both (B, ...); fused if logits are known."""
    logits = _logits_of(probabilities)
    if logits is not None:
        return ops.bernoulli_nll(logits, target, reduction=reduction)
    if torch.is_grad_enabled():
        warnings.warn(
            "fastvae.patch: the reconstruction is not the result of the forward's last sigmoid, so its logits are "
            "unknown: the binary cross-entropy stays torch's, on probabilities (the KL is fused)",
            stacklevel=3,
        )
    if reduction == "sum":
        return F.binary_cross_entropy(probabilities, target, reduction="sum")
    nll = F.binary_cross_entropy(probabilities, target, reduction="none").flatten(1).sum(1)
    return nll.mean() if reduction == "batchmean" else nll
