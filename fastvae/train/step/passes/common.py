"""Helpers that the passes over a traced step share."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from fastvae import backends

aten = torch.ops.aten
linear_pointwise = torch.ops.mkldnn._linear_pointwise.default


def replace(graph: Graph, node: Node, other: Any) -> None:
    """Let all users of a node read ``other`` instead, and erase the node."""
    node.replace_all_uses_with(other)
    graph.erase_node(node)


def is_dense_on_cpu(
    value: Tensor, *dtypes: torch.dtype, memory_format: torch.memory_format = torch.contiguous_format
) -> bool:
    """Return whether a tensor is on the CPU, of one of these types, and dense in this memory format."""
    return value.device.type == "cpu" and value.dtype in dtypes and value.is_contiguous(memory_format=memory_format)


def propagate_strides(graph: GraphModule) -> None:
    """Recompute the strides of a graph after a pass that changed some: the trace's own are of what it recorded."""
    inputs = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    FakeTensorProp(graph, inputs[0].fake_mode).propagate_dont_convert_inputs(*inputs)


def onednn_is_faster(dtype: torch.dtype) -> bool:
    """Return whether oneDNN is the fastest library here for large matrices of a type.

    In fp32 torch uses MKL, which leaves AVX-512 unused on AMD's processors. In bf16 torch itself uses oneDNN, on a CPU
    that has more than AVX2.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.float32:
        return backends.is_amd()
    return dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
