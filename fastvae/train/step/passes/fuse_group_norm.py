"""Fuse group norm and SiLU, and their backwards, in a traced step on a CPU."""

import operator
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, GraphModule, Node

from fastvae import backends
from fastvae.ops.internal.group_norm_silu import group_norm_silu, group_norm_silu_backward

from .common import aten, is_dense_on_cpu


def fuse_group_norms(graph: GraphModule) -> bool:
    """Compute a group norm and the SiLU after it in one pass, and their gradients in another.

    For graphs that no compiler fuses, of images in channels_last, in fp32 or bf16. Returns whether any was fused: then
    what follows is in channels_last too, once :func:`.common.propagate_strides` has said so. (Figures for ``conv28``:
    benchmarks/results/bench-conv28-cpu.json.)
    """
    if not backends.has_native():
        return False
    norms = graph.graph.find_nodes(op="call_function", target=aten.native_group_norm.default)
    supported = [(norm, found) for norm in norms if (found := _match(norm)) is not None]
    for norm, found in supported:
        _fuse(graph.graph, norm, found)
    return bool(supported)


def reshape_views(graph: GraphModule) -> None:
    """Turn views of images into reshapes, which copy if they must.

    A fused group norm keeps channels_last, where torch's trace recorded its output as NCHW.
    """
    for node in graph.graph.find_nodes(op="call_function", target=aten.view.default):
        (source, *_) = node.all_input_nodes
        if source.meta["val"].dim() == 4:
            node.target = aten.reshape.default


class _Match(NamedTuple):
    """The nodes around a group norm: its outputs by index, the SiLU, and the backwards of both."""

    outputs: dict[int, Node]  # output, mean, 1/deviation
    silu: Node
    silu_backward: Node
    norm_backward: Node


def _match(norm: Node) -> _Match | None:
    """Match a norm that is used by a SiLU and by the gradients of all three inputs alone; None for any other."""
    outputs = _items(norm)
    if outputs is None or set(outputs) != {0, 1, 2}:
        return None
    users = {user.target: user for user in outputs[0].users}
    if len(outputs[0].users) != 2 or set(users) != {aten.silu.default, aten.silu_backward.default}:
        return None
    silu = users[aten.silu.default]
    silu_backward = users[aten.silu_backward.default]
    readers = {user for node in (silu_backward, outputs[1], outputs[2]) for user in node.users}
    if silu_backward.args[1] is not outputs[0] or len(readers) != 1:
        return None
    (norm_backward,) = readers
    arguments: tuple[Any, ...] = norm.args
    expected = (silu_backward, arguments[0], outputs[1], outputs[2], arguments[1], *arguments[3:7], [True] * 3)
    matches = norm_backward.target is aten.native_group_norm_backward.default and norm_backward.args == expected
    if (
        not matches
        or _items(norm_backward) is None
        or not _is_supported(arguments[0], arguments[1], arguments[2], silu_backward.args[0])
    ):
        return None
    return _Match(outputs, silu, silu_backward, norm_backward)


def _items(node: Node) -> dict[int, Node] | None:
    """Return the outputs of a node that has several, by index; None if the tuple is used in another way."""
    items = {user.args[1]: user for user in node.users if user.target is operator.getitem}
    return items if len(items) == len(node.users) else None  # type: ignore[return-value]


def _is_supported(x: Node, weight: Node | None, bias: Node | None, gradient: Any) -> bool:
    if weight is None or bias is None:
        return False
    images, incoming = (node.meta["val"] for node in (x, gradient))
    dense = all(
        value.dim() == 4 and is_dense_on_cpu(value, torch.float32, torch.bfloat16, memory_format=torch.channels_last)
        for value in (images, incoming)
    )
    affine = all(node.meta["val"].dtype == torch.float32 for node in (weight, bias))
    return dense and affine and incoming.dtype == images.dtype


def _fuse(graph: Graph, norm: Node, found: _Match) -> None:
    arguments: tuple[Any, ...] = norm.args
    x, weight, bias, *_, groups, eps = arguments
    outputs = found.outputs
    with graph.inserting_before(norm):
        fused = graph.call_function(group_norm_silu, (x, weight, bias, groups, eps))
    with graph.inserting_before(found.silu_backward):
        incoming = (found.silu_backward.args[0], x, outputs[1], outputs[2], weight, bias, groups)
        fused_backward = graph.call_function(group_norm_silu_backward, incoming)
    for old, new in ((norm, fused), (found.norm_backward, fused_backward)):
        old.replace_all_uses_with(new)
    found.silu.replace_all_uses_with(outputs[0])
    for node in (found.norm_backward, found.silu_backward, found.silu, norm):
        graph.erase_node(node)
