"""Batch the small bf16 matmuls of a traced step on a CPU into calls of fastvae's own matmul."""

import operator
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from fastvae import backends
from fastvae.ops.internal.mm import mm_of_lists

from .common import aten, replace

# Multiplications. Up to here fastvae's matmul is 1.0 to 2.9 times as fast as oneDNN's, and more in a whole step, since
# it packs its operands while they are in the cache. At 256 x 1024 x 1024 oneDNN's blocking for the caches begins to win
# (2-core EPYC with AVX-512 BF16: benchmarks/bench_mm.py).
_SMALL = 1 << 27
_DEEP = 1 << 14  # longest sum: 28 rows of pairs of that length are 0.9 MB, which fit a thread's cache


def batch_matmuls(graph: GraphModule, *, fused: bool) -> None:
    """Compute small bf16 matmuls on a CPU by fastvae's own, where it is faster; leave the others as they are.

    ``fused``: a compiler will fuse what is between the matmuls. The biases of 16-bit matmuls are then split off, so
    that it fuses them with the activations: inside a matmul, oneDNN takes 15 to 45 us a layer for them at batch 100
    (leaky: 3.4 % of a step). In fp32, or without a compiler, that gains nothing.
    """
    # On a CPU with AMX tiles oneDNN is faster: it uses them.
    if backends.multiplies_bf16() and not torch.cpu._is_amx_tile_supported():
        _cancel_transposes(graph)
        for group in _groups(graph):
            _batch(graph, group)
    if fused:
        for node in [*graph.graph.nodes]:
            if node.target in (aten.addmm.default, mm_of_lists):
                _split_biases(graph, node)


def _groups(graph: GraphModule) -> Iterator[list[Node]]:
    """Yield the small bf16 matmuls in order, grouped by which can be computed at once."""
    group: list[Node] = []
    for node in [*graph.graph.nodes]:
        if group and _is_mutation(node):  # it may write what a matmul of the group reads
            yield group
            group = []
        if not _is_small_matmul(node):
            continue
        if group and not _may_join(node, group):
            yield group
            group = []
        group.append(node)
    if group:
        yield group


def _is_mutation(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _is_small_matmul(node: Node) -> bool:
    if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
        return False
    *bias, left, right = (argument.meta["val"] for argument in cast("tuple[Node, ...]", node.args))
    are_bf16 = all(value.device.type == "cpu" and value.dtype == torch.bfloat16 for value in (*bias, left, right))
    rows, depth = left.shape
    columns = right.shape[1]
    # The first term of addmm may be a matrix, too.
    return (
        are_bf16
        and rows * depth * columns <= _SMALL
        and depth <= _DEEP
        and all(b.shape == (columns,) and b.stride() == (1,) for b in bias)
    )


def _cancel_transposes(graph: GraphModule) -> None:
    """Drop double transposes, which autograd records for the gradients of weights.

    Between two matmuls, a transpose would look like a use of the first.
    """
    for node in graph.graph.find_nodes(op="call_function", target=aten.t.default):
        (first,) = node.args
        if first.target is aten.t.default:
            replace(graph.graph, node, first.args[0])
    graph.graph.eliminate_dead_code()


def _may_join(node: Node, group: list[Node]) -> bool:
    """Return whether the matmuls of a group can be computed together with this one: no node up to it uses them."""
    uses = (user for member in group for user in member.users)
    return node.target is group[0].target and all(node < use for use in uses)


def _batch(graph: GraphModule, group: list[Node]) -> None:
    *biases, lefts, rights = (list(arguments) for arguments in zip(*(node.args for node in group), strict=True))
    with graph.graph.inserting_before(group[-1]):
        products = graph.graph.call_function(mm_of_lists, (lefts, rights, *(biases or [[]])))
        outputs = [graph.graph.call_function(operator.getitem, (products, k)) for k in range(len(group))]
    products.meta["val"] = [node.meta["val"] for node in group]
    for node, output in zip(group, outputs, strict=True):
        output.meta["val"] = node.meta["val"]
        replace(graph.graph, node, output)


def _split_biases(graph: GraphModule, node: Node) -> None:
    """Move the biases of a node's 16-bit matmuls into additions of their own."""
    if node.target is aten.addmm.default:
        value = node.meta["val"]
        bias, *factors = node.args
        if value.device.type != "cpu" or value.dtype not in (torch.bfloat16, torch.float16) or node.kwargs:
            return
        with graph.graph.inserting_before(node):
            product = graph.graph.call_function(aten.mm.default, tuple(factors))
        product.meta["val"] = value
        replace(graph.graph, node, _add(graph, product, bias))
        return
    lefts, rights, *_ = node.args
    biases = cast("list[Node]", node.args[2])
    node.args = (lefts, rights, [])
    for output in list(node.users) if biases else ():
        uses = list(output.users)
        total = _add(graph, output, biases[cast("int", output.args[1])])
        for use in uses:
            use.replace_input_with(output, total)


def _add(graph: GraphModule, product: Node, bias: Any) -> Node:
    with graph.graph.inserting_after(product):
        total = graph.graph.call_function(aten.add.Tensor, (product, bias))
    total.meta["val"] = product.meta["val"]
    return total
