"""The parameters that a forward pass reads in low precision alone."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx


def only_cast(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    copies: Mapping[Tensor, Tensor],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> list[bool]:
    """Return which inputs of a function are parameters that it does nothing with but cast them as their copies are.

    The copies can then stand for them. A model may read a weight in other ways, too (its norm, or a layer without
    autocast): such a weight is needed in fp32.
    """
    if not any(tensor in copies for tensor in inputs):
        return [False] * len(inputs)

    def forward(*given: Tensor) -> Any:
        with autocast(), torch.no_grad():
            return function(*given)

    graph = make_fx(forward, tracing_mode="fake", _allow_non_fake_inputs=True)(*map(Tensor.detach, inputs))
    places = graph.graph.find_nodes(op="placeholder")
    return [
        tensor in copies and all(_is_cast(user, copies[tensor].dtype) for user in place.users)
        for tensor, place in zip(inputs, places, strict=True)
    ]


def _is_cast(node: Node, dtype: torch.dtype) -> bool:
    return node.target is torch.ops.aten._to_copy.default and node.kwargs == {"dtype": dtype}
