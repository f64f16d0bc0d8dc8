"""Copies of a user's own model, for trials."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

_Model = TypeVar("_Model", bound=nn.Module)


def copy_model(model: _Model) -> _Model:
    """Copy a model, even one that keeps tensors which autograd made, as weight_norm and many a plot do.

    ``copy.deepcopy`` refuses those; here their copies hold the same values without a history.
    """
    with _DetachedCopies():
        return copy.deepcopy(model)


class _DetachedCopies(torch.overrides.TorchFunctionMode):
    """Inside, ``copy.deepcopy`` copies a tensor that is not a leaf as one that is."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            memo = args[1]
            if id(args[0]) not in memo:
                memo[id(args[0])] = args[0].detach().clone()
            return memo[id(args[0])]
        return func(*args, **(kwargs or {}))
