"""Batch the small matmuls of a traced step on a CPU into calls of fastvae's own matmul."""

import operator
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from fastvae import backends
from fastvae.ops.internal.mm import mm_of_lists

from .common import aten, replace

# By type, the multiplications of a matmul and the length of its sums up to which fastvae's own is as fast as any, and
# faster in a whole step, since it packs its operands while they are in the cache (2-core EPYC with AVX-512 BF16:
# benchmarks/bench_mm.py). In bf16 it is 1.0 to 2.9 times as fast as oneDNN's; at 256 x 1024 x 1024 oneDNN's blocking
# for the caches begins to win. In fp32 it is as fast as oneDNN's and 1.0 to 1.2 times as fast as MKL's up to sums of
# 2,048, where a strip of columns takes a quarter of a core's second cache.
_LIMITS = {torch.bfloat16: (1 << 27, 1 << 14), torch.float32: (1 << 33, 1 << 11), torch.float64: (1 << 33, 1 << 10)}
_SPLIT = (torch.bfloat16, torch.float16)


def batch_matmuls(graph: GraphModule, *, fused: bool) -> None:
    """Compute small matmuls on a CPU by fastvae's own, where it is faster; leave the others as they are.

    ``fused``: a compiler will fuse what is between the matmuls. The biases of 16-bit matmuls are then split off, so
    that it fuses them with the activations: inside a matmul, oneDNN takes 15 to 45 us a layer for them at batch 100
    (leaky: 3.4 % of a step). In fp32, or without a compiler, that gains nothing.
    """
    own = _own_types()
    if own:
        _cancel_transposes(graph)
        for group in _groups(graph, own):
            _batch(graph, group)
    if fused:
        for node in [*graph.graph.nodes]:
            if node.target in (aten.addmm.default, mm_of_lists):
                _split_biases(graph, node)


def _own_types() -> set[torch.dtype]:
    """Return the types of the matrices that fastvae multiplies itself on this machine."""
    types = {torch.float32, torch.float64} if backends.has_native() else set()
    if backends.multiplies_bf16() and not torch.cpu._is_amx_tile_supported():  # oneDNN uses AMX tiles, and is faster
        types.add(torch.bfloat16)
    return types


def _groups(graph: GraphModule, own: set[torch.dtype]) -> Iterator[list[Node]]:
    """Yield the small matmuls in order, grouped by which can be computed at once."""
    group: list[Node] = []
    for node in [*graph.graph.nodes]:
        if group and _is_mutation(node):  # it may write what a matmul of the group reads
            yield group
            group = []
        if not _is_small_matmul(node, own):
            continue
        if group and not _may_join(node, group):
            yield group
            group = []
        group.append(node)
    if group:
        yield group


def _is_mutation(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _is_small_matmul(node: Node, own: set[torch.dtype]) -> bool:
    if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
        return False
    *bias, left, right = (argument.meta["val"] for argument in cast("tuple[Node, ...]", node.args))
    are_own = left.dtype in own and all(
        value.device.type == "cpu" and value.dtype == left.dtype for value in (*bias, left, right)
    )
    rows, depth = left.shape
    columns = right.shape[1]
    most, deepest = _LIMITS.get(left.dtype, (0, 0))
    # The first term of addmm may be a matrix, too.
    return (
        are_own
        and rows * depth * columns <= most
        and depth <= deepest
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
    alike = node.target is group[0].target and node.meta["val"].dtype == group[0].meta["val"].dtype
    return alike and all(node < use for use in uses)


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
        if value.device.type != "cpu" or value.dtype not in _SPLIT or node.kwargs:
            return
        with graph.graph.inserting_before(node):
            product = graph.graph.call_function(aten.mm.default, tuple(factors))
        product.meta["val"] = value
        replace(graph.graph, node, _add(graph, product, bias))
        return
    lefts, rights, *_ = node.args
    biases = cast("list[Node]", node.args[2])
    if biases and biases[0].meta["val"].dtype not in _SPLIT:
        return
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
