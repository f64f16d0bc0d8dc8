"""The matrix products of a recorded step on a CPU: whose they are, and what is done with them."""

import operator
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from fastvae import backends
from fastvae.ops.internal.mm import mm_of_lists

_aten = torch.ops.aten
# Multiplications. fastvae's product is 1.0 to 2.9 times as fast as oneDNN's up to here, in a whole step more, since it
# packs what it reads into its own caches; at 256 x 1024 x 1024 oneDNN's blocks for the caches begin to win
# (2-core EPYC with AVX-512 BF16: benchmarks/bench_mm.py).
_SMALL = 1 << 27
_DEEP = 1 << 14  # of sums: 28 rows of pairs of it are 0.9 MB, which a thread keeps


def batch_matmuls(graph: GraphModule, *, fused: bool) -> None:
    """Small bf16 products on a CPU by fastvae, where it multiplies faster; the rest stays as it is.

    ``fused``: a compiler joins what stands between the products. It gets the biases of 16-bit products apart, to join
    them to the activations: within a product, oneDNN takes 15 to 45 us a layer for them at batch 100 (leaky: 3.4 % of
    a step). In fp32, and in lists that nobody fuses, that is no gain.
    """
    # Where there are AMX tiles, oneDNN uses them.
    if backends.multiplies_bf16() and not torch.cpu._is_amx_tile_supported():
        _cancel_transposes(graph)
        for group in _groups(graph):
            _multiply_at_once(graph, group)
    if fused:
        for node in [*graph.graph.nodes]:
            if node.target in (_aten.addmm.default, mm_of_lists):
                _part_biases(graph, node)


def _groups(graph: GraphModule) -> Iterator[list[Node]]:
    """The small bf16 products, in their order, those together that can be computed at once."""
    group: list[Node] = []
    for node in [*graph.graph.nodes]:
        if group and _is_mutation(node):  # of what a product reads, perhaps, and may not wait to read
            yield group
            group = []
        if not _is_own(node):
            continue
        if group and not _may_join(node, group):
            yield group
            group = []
        group.append(node)
    if group:
        yield group


def _is_mutation(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _is_own(node: Node) -> bool:
    if node.target not in (_aten.mm.default, _aten.addmm.default) or node.kwargs:
        return False
    *bias, left, right = (argument.meta["val"] for argument in cast("tuple[Node, ...]", node.args))
    alike = all(value.device.type == "cpu" and value.dtype == torch.bfloat16 for value in (*bias, left, right))
    (rows, depth), columns = left.shape, right.shape[1]
    # addmm's first term may be a matrix too.
    return (
        alike
        and rows * depth * columns <= _SMALL
        and depth <= _DEEP
        and all(b.shape == (columns,) and b.stride() == (1,) for b in bias)
    )


def _cancel_transposes(graph: GraphModule) -> None:
    """Gradients of weights are recorded transposed twice: between two products, that would look like a use of one."""
    for node in graph.graph.find_nodes(op="call_function", target=_aten.t.default):
        (first,) = node.args
        if first.target is _aten.t.default:
            _replace(graph, node, first.args[0])
    graph.graph.eliminate_dead_code()


def _may_join(node: Node, group: list[Node]) -> bool:
    """Whether the products of a group can wait for this one: nothing up to it uses them."""
    uses = (user for member in group for user in member.users)
    return node.target is group[0].target and all(node < use for use in uses)


def _multiply_at_once(graph: GraphModule, group: list[Node]) -> None:
    *biases, lefts, rights = (list(arguments) for arguments in zip(*(node.args for node in group), strict=True))
    with graph.graph.inserting_before(group[-1]):
        products = graph.graph.call_function(mm_of_lists, (lefts, rights, *(biases or [[]])))
        outputs = [graph.graph.call_function(operator.getitem, (products, k)) for k in range(len(group))]
    products.meta["val"] = [node.meta["val"] for node in group]
    for node, output in zip(group, outputs, strict=True):
        output.meta["val"] = node.meta["val"]
        _replace(graph, node, output)


def _part_biases(graph: GraphModule, node: Node) -> None:
    """The biases of a node's 16-bit products in additions of their own."""
    if node.target is _aten.addmm.default:
        value, (bias, *factors) = node.meta["val"], node.args
        if value.device.type != "cpu" or value.dtype not in (torch.bfloat16, torch.float16) or node.kwargs:
            return
        with graph.graph.inserting_before(node):
            product = graph.graph.call_function(_aten.mm.default, tuple(factors))
        product.meta["val"] = value
        _replace(graph, node, _add(graph, product, bias))
        return
    lefts, rights, biases = node.args[0], node.args[1], cast("list[Node]", node.args[2])
    node.args = (lefts, rights, [])
    for output in list(node.users) if biases else ():
        uses = list(output.users)
        total = _add(graph, output, biases[cast("int", output.args[1])])
        for use in uses:
            use.replace_input_with(output, total)


def _add(graph: GraphModule, product: Node, bias: Any) -> Node:
    with graph.graph.inserting_after(product):
        total = graph.graph.call_function(_aten.add.Tensor, (product, bias))
    total.meta["val"] = product.meta["val"]
    return total


def _replace(graph: GraphModule, node: Node, other: Any) -> None:
    node.replace_all_uses_with(other)
    graph.graph.erase_node(node)
