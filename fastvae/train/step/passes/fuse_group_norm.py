"""The group norms of a recorded step on a CPU."""

import operator
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from fastvae import backends
from fastvae.ops.internal.group_norm_silu import group_norm_silu, group_norm_silu_backward

_aten = torch.ops.aten


def fuse_group_norms(graph: GraphModule) -> None:
    """A group norm and the SiLU behind it in one pass, and their gradients in another, in lists that nobody fuses.

    For images in channels_last, in fp32 or bf16. (Figures of ``conv28``: benchmarks/results/bench-conv28-cpu.json.)
    """
    while backends.has_native():
        norms = graph.graph.find_nodes(op="call_function", target=_aten.native_group_norm.default)
        served = [(norm, found) for norm in norms if (found := _found(norm)) is not None]
        if not served:
            break
        for norm, found in served:
            _join(graph.graph, norm, found)
        _lay_out(graph)


def reshape_views(graph: GraphModule) -> None:
    """Views of images as what copies them where need be: behind a norm they may lie otherwise than torch recorded."""
    for node in graph.graph.find_nodes(op="call_function", target=_aten.view.default):
        (source, *_) = node.all_input_nodes
        if source.meta["val"].dim() == 4:
            node.target = _aten.reshape.default


class _Found(NamedTuple):
    """What there is of a norm: its outputs, the SiLU, and the backwards of both."""

    outputs: dict[int, Node]  # output, mean, 1/deviation
    silu: Node
    of_silu: Node
    of_norm: Node


def _found(norm: Node) -> _Found | None:
    """None for what is used in any other way than by a SiLU and the gradients of all three inputs."""
    outputs = _items(norm)
    if outputs is None or set(outputs) != {0, 1, 2}:
        return None
    users = {user.target: user for user in outputs[0].users}
    if len(outputs[0].users) != 2 or set(users) != {_aten.silu.default, _aten.silu_backward.default}:
        return None
    silu, of_silu = users[_aten.silu.default], users[_aten.silu_backward.default]
    readers = {user for node in (of_silu, outputs[1], outputs[2]) for user in node.users}
    if of_silu.args[1] is not outputs[0] or len(readers) != 1:
        return None
    (of_norm,) = readers
    arguments: tuple[Any, ...] = norm.args
    expected = (of_silu, arguments[0], outputs[1], outputs[2], arguments[1], *arguments[3:7], [True] * 3)
    matches = of_norm.target is _aten.native_group_norm_backward.default and of_norm.args == expected
    if (
        not matches
        or _items(of_norm) is None
        or not _is_served(arguments[0], arguments[1], arguments[2], of_silu.args[0])
    ):
        return None
    return _Found(outputs, silu, of_silu, of_norm)


def _items(node: Node) -> dict[int, Node] | None:
    """The outputs of a node that has several; None if they are used in another way."""
    items = {user.args[1]: user for user in node.users if user.target is operator.getitem}
    return items if len(items) == len(node.users) else None  # type: ignore[return-value]


def _is_served(x: Node, weight: Node | None, bias: Node | None, gradient: Any) -> bool:
    if weight is None or bias is None:
        return False
    images, incoming = x.meta["val"], gradient.meta["val"]
    dense = all(
        value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last) for value in (images, incoming)
    )
    affine = all(node.meta["val"].dtype == torch.float32 for node in (weight, bias))
    served = images.dtype in (torch.float32, torch.bfloat16) and incoming.dtype == images.dtype
    return dense and affine and served and images.device.type == "cpu"


def _join(graph: Graph, norm: Node, found: _Found) -> None:
    arguments: tuple[Any, ...] = norm.args
    x, weight, bias, *_, groups, eps = arguments
    outputs = found.outputs
    with graph.inserting_before(norm):
        joint = graph.call_function(group_norm_silu, (x, weight, bias, groups, eps))
    with graph.inserting_before(found.of_silu):
        incoming = (found.of_silu.args[0], x, outputs[1], outputs[2], weight, bias, groups)
        of_joint = graph.call_function(group_norm_silu_backward, incoming)
    for old, new in ((norm, joint), (found.of_norm, of_joint)):
        old.replace_all_uses_with(new)
    found.silu.replace_all_uses_with(outputs[0])
    for node in (found.of_norm, found.of_silu, found.silu, norm):
        graph.erase_node(node)


def _lay_out(graph: GraphModule) -> None:
    """Note anew how everything lies: torch records a norm's output, and what comes of it, as if it were NCHW."""
    inputs = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    FakeTensorProp(graph, inputs[0].fake_mode).propagate_dont_convert_inputs(*inputs)
