"""Factors of one in a recorded step: autograd begins with the gradient of a loss in itself."""

import torch
from torch.fx import GraphModule, Node

_aten = torch.ops.aten


def drop_ones(graph: GraphModule) -> None:
    """Take out what multiplies by that gradient, a launch for each loss; the bits stay the same."""
    for one in graph.graph.find_nodes(op="call_function", target=_aten.ones_like.default):
        for node in list(one.users):
            if node.target is torch.ops.fastvae.scale_gradient_.default and node.args[1] is one:
                graph.graph.erase_node(node)
            elif node.target is _aten.mul.Tensor:
                other = node.args[1] if node.args[0] is one else node.args[0]
                if isinstance(other, Node) and _is_alike(other, node):
                    node.replace_all_uses_with(other)
                    graph.graph.erase_node(node)


def _is_alike(node: Node, other: Node) -> bool:
    one, two = node.meta["val"], other.meta["val"]
    return bool(one.shape == two.shape and one.dtype == two.dtype)
