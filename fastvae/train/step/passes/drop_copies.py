"""Drop copies of tensors that nothing else reads, in a traced step on a CPU."""

import operator

from torch.fx import GraphModule, Node

from .common import aten, replace

_COPIES = (aten._to_copy.default, aten.clone.default)


def drop_copies(graph: GraphModule) -> None:
    """Use a tensor itself in place of a copy of it that has the same type and layout.

    Such copies are left over where a pass has changed the type or layout of what they convert. One is dropped only if
    it was the sole reader of its tensor's memory: then no operator that writes to one of them can be told from one that
    writes to the other.
    """
    for target in _COPIES:
        for node in graph.graph.find_nodes(op="call_function", target=target):
            source = node.args[0]
            if _is_alike(source, node) and _is_sole_reader(source):
                replace(graph.graph, node, source)


def _is_alike(source: Node, copy: Node) -> bool:
    values = (node.meta["val"] for node in (source, copy))
    before, after = ((value.dtype, value.device, value.shape, value.stride()) for value in values)
    return before == after


def _is_sole_reader(node: Node) -> bool:
    """Return whether a tensor has one user, and no other node reads or keeps the memory that it lies in."""
    while node.op == "call_function" and len(node.users) == 1:
        if node.target is operator.getitem:
            (node,) = node.all_input_nodes
            return not _returns_views(node)
        if not _returns_views(node):
            return True
        if len(node.all_input_nodes) != 1:
            return False
        (node,) = node.all_input_nodes
    return False


def _returns_views(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None or node.target is aten._unsafe_view.default:  # an unknown function may return anything
        return True
    return any(returned.alias_info is not None for returned in schema.returns)
