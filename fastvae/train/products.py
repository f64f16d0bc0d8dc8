"""The matrix products of a recorded step on a CPU: whose they are, and what is part of them."""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..ops import _library
from ..ops import mm as _  # noqa: F401 -- declares the operator

_aten = torch.ops.aten
# Multiplications. fastvae's product is 1.0 to 2.9 times as fast as oneDNN's up to here, in a whole step more, since it
# packs what it reads into its own caches; at 256 x 1024 x 1024 oneDNN's blocks for the caches begin to win
# (2-core EPYC with AVX-512 BF16: benchmarks/bench_mm.py).
_SMALL = 1 << 27


def choose_products(graph: GraphModule, *, fused: bool) -> None:
    """Small bf16 products on a CPU by fastvae, where it multiplies faster; the rest stays as it is.

    ``fused``: a compiler joins neighbours of the products to one another.
    """
    if fused:
        _part_biases(graph)
    # Where there are AMX tiles, oneDNN uses them.
    if not _library.multiplies_bf16() or torch.cpu._is_amx_tile_supported():
        return
    for node in _products(graph):
        *bias, left, right = node.args
        if node.meta["val"].dtype == torch.bfloat16 and _multiplications(left, right) <= _SMALL:
            _replace(graph, node, torch.ops.fastvae.mm.default, (left, right, *(bias or [None])))


def _part_biases(graph: GraphModule) -> None:
    """Add the biases of 16-bit products in nodes of their own, which TorchInductor joins to the activations.

    Within the product, oneDNN takes 15 to 45 us a layer for them at batch 100 (leaky: 3.4 % of a step). In fp32, and in
    lists that nobody fuses, it is no gain.
    """
    for node in _products(graph):
        if node.target is not _aten.addmm.default or node.meta["val"].dtype == torch.float32:
            continue
        bias, *factors = node.args
        with graph.graph.inserting_before(node):
            product = graph.graph.call_function(_aten.mm.default, tuple(factors))
        product.meta["val"] = node.meta["val"]
        _replace(graph, node, _aten.add.Tensor, (product, bias))


def _products(graph: GraphModule) -> list[Node]:
    targets = (_aten.mm.default, _aten.addmm.default)
    nodes = [node for target in targets for node in graph.graph.find_nodes(op="call_function", target=target)]
    return [node for node in nodes if node.meta["val"].device.type == "cpu" and not node.kwargs]


def _multiplications(left: Any, right: Any) -> int:
    (rows, depth), columns = left.meta["val"].shape, right.meta["val"].shape[1]
    return int(rows * depth * columns)


def _replace(graph: GraphModule, node: Node, target: Any, arguments: tuple[Any, ...]) -> None:
    with graph.graph.inserting_before(node):
        other = graph.graph.call_function(target, arguments)
    other.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(other)
    graph.graph.erase_node(node)
