"""Give the large fp32 matmuls of a traced step to oneDNN, on processors where torch's own library is slower."""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from fastvae.ops.internal.onednn_linear import onednn_linear

from .common import aten, linear_pointwise, onednn_is_faster, replace


def onednn_matmuls(graph: GraphModule, *, fused: bool) -> None:
    """Compute the fp32 matmuls that are left in a graph by oneDNN, where it is faster: on AMD's processors.

    ``fused``: TorchInductor will compile the graph, so they are operators that it leaves alone.

    On a Zen 4, oneDNN reaches 97 to 103 GFLOP/s a core at 1024 x 784 x 400 and MKL 87 to 91; on an AMD processor whose
    units for AVX-512 are as wide as its registers, 476 and 216 on two cores.
    """
    if not onednn_is_faster(torch.float32):
        return
    for target in (aten.mm.default, aten.addmm.default):
        for node in graph.graph.find_nodes(op="call_function", target=target):
            _replace(graph, node, fused)


def _replace(graph: GraphModule, node: Node, fused: bool) -> None:
    arguments: tuple[Any, ...] = node.args
    *bias, left, right = arguments
    values = [each.meta["val"] for each in arguments]
    if node.kwargs or not all(value.device.type == "cpu" and value.dtype == torch.float32 for value in values):
        return
    rows, depth = left.meta["val"].shape
    columns = right.meta["val"].shape[1]
    is_dense_bias = all(each.meta["val"].shape == (columns,) and each.meta["val"].is_contiguous() for each in bias)
    if not is_dense_bias or 0 in (rows, depth, columns):
        return
    with graph.graph.inserting_before(node):
        weight = graph.graph.call_function(aten.t.default, (right,))
        operands = (left, weight, bias[0] if bias else None)
        if fused:
            product = graph.graph.call_function(onednn_linear, operands)
        else:
            product = graph.graph.call_function(linear_pointwise, (*operands, "none", [], ""))
    weight.meta["val"] = right.meta["val"].t()
    product.meta["val"] = node.meta["val"]
    replace(graph.graph, node, product)
