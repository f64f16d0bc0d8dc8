"""Reconstruction terms of code whose decoder puts out probabilities.

The fused binary cross-entropy wants logits. Taken back out of the probabilities they would be wrong where it matters:
in fp32 ``sigmoid(17)`` is 1. So a patched forward is watched, and the sigmoid that made the probabilities has its
argument remembered, for as long as its result lives.
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
    """A sigmoid's argument, and what torch counted as in-place changes of it and of the result, then."""

    logits: Tensor
    versions: tuple[int, int]


_known = WeakIdKeyDictionary()  # a sigmoid's result -> its _Argument


class _Watch(TorchFunctionMode):
    """Remembers the last sigmoid computed inside; an earlier one is a gate, and would only be kept from being freed."""

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
    """A forward whose last sigmoid is remembered."""

    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with _Watch():
            return forward(*args, **kwargs)

    return wrapper


def _logits_of(probabilities: Tensor) -> Tensor | None:
    """The logits of probabilities that a watched forward made, in their shape; None where that is not certain."""
    whole = probabilities if probabilities._base is None else probabilities._base
    known: _Argument | None = _known.get(whole)
    if known is None or known.versions != (known.logits._version, whole._version):
        return None
    # A reshaped view holds the same elements in the same order; a slice or a transposed view does not.
    same = whole.numel() == probabilities.numel() and whole.is_contiguous() and probabilities.is_contiguous()
    return known.logits.reshape(probabilities.shape) if same else None


def fits(output: Tensor, target: Tensor) -> bool:
    """Whether the fused terms read this target as eager code does.

    They read integers as x/255 and have no gradient for a target, and a target finer than the output would be rounded.
    """
    return target.dtype in (torch.float32, output.dtype) and output.is_floating_point() and not target.requires_grad


def bernoulli(probabilities: Tensor, target: Tensor, *, reduction: Literal["batchmean", "sum", "none"]) -> Tensor:
    """Binary cross-entropy of ``probabilities`` and ``target``, both (B, ...): fused, if their logits are known."""
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
