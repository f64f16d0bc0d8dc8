"""Helpers that the passes over a traced step share."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

aten = torch.ops.aten


def replace(graph: Graph, node: Node, other: Any) -> None:
    """Let all users of a node read ``other`` instead, and erase the node."""
    node.replace_all_uses_with(other)
    graph.erase_node(node)


def is_dense_on_cpu(
    value: Tensor, *dtypes: torch.dtype, memory_format: torch.memory_format = torch.contiguous_format
) -> bool:
    """Return whether a tensor is on the CPU, of one of these types, and dense in this memory format."""
    return value.device.type == "cpu" and value.dtype in dtypes and value.is_contiguous(memory_format=memory_format)
