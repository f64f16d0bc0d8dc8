"""Drop the factors of one from a traced step: autograd starts with a gradient of ones."""

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

_mul = torch.ops.aten.mul.Tensor
_ones_like = torch.ops.aten.ones_like.default


def drop_ones(graph: GraphModule) -> None:
    """Remove the operators that scale a gradient by one, a launch for each loss; the bits stay the same."""
    for one in graph.graph.find_nodes(op="call_function", target=_ones_like):
        scales = [user for user in one.users if _scales_by(user, one)]
        # Somebody's own ones may be written to, through a view as well.
        if one.meta["val"].dim() == 0 and all(user in scales or _only_reads(user) for user in one.users):
            for node in scales:
                graph.graph.erase_node(node)
            for product in [user for user in one.users if user.target is _mul]:
                (other,) = {*product.args} - {one} or {one}
                if (
                    isinstance(other, Node)
                    and _is_same(other, product)
                    and _is_constant(other)
                    and _is_constant(product)
                ):
                    product.replace_all_uses_with(other)
                    graph.graph.erase_node(product)


def _is_same(node: Node, other: Node) -> bool:
    one, two = (value.meta["val"] for value in (node, other))
    return bool(one.shape == two.shape and one.dtype == two.dtype)


def _is_constant(node: Node) -> bool:
    """Return whether a node's memory is its own, or the step's argument, and nothing writes to it."""
    is_own = node.op == "placeholder" or _only_reads(node)
    return is_own and all(_only_reads(user) for user in node.users)


def _scales_by(user: Node, one: Node) -> bool:
    return user.target is torch.ops.fastvae.scale_gradient_.default and user.args[1] is one and user.args[0] is not one


def _only_reads(user: Node) -> bool:
    """Return whether an operator writes to nothing, and returns nothing that shares memory with its arguments."""
    if not isinstance(user.target, OpOverload):
        return False
    schema = user.target._schema
    return not schema.is_mutable and all(value.alias_info is None for value in schema.returns)
