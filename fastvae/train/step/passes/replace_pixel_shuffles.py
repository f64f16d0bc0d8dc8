"""Pixel shuffles of a traced step on a CPU, by fastvae's own kernel."""

import torch
from torch.fx import GraphModule

from fastvae import backends
from fastvae.ops.internal.pixel_shuffle import pixel_shuffle, pixel_unshuffle

from .common import aten, is_dense_on_cpu, replace

_OWN = {aten.pixel_shuffle.default: pixel_shuffle, aten.pixel_unshuffle.default: pixel_unshuffle}
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def replace_pixel_shuffles(graph: GraphModule) -> bool:
    """Shuffle pixels in channels_last in one pass of whole vectors, where torch copies number by number.

    For graphs that no compiler fuses. Returns whether there was any; what follows is then in channels_last, once
    :func:`.common.propagate_strides` has said so. A batch of 128 x 96 x 7 x 7 in bf16 takes one thread of a Zen 4 core
    0.09 ms in place of 0.27, and the gradient 0.09 in place of 1.19.
    """
    found = False
    if not backends.has_native():
        return found
    for target, own in _OWN.items():
        for node in graph.graph.find_nodes(op="call_function", target=target):
            images, factor = node.args
            if not is_dense_on_cpu(images.meta["val"], *_DTYPES, memory_format=torch.channels_last):
                continue
            with graph.graph.inserting_before(node):
                shuffled = graph.graph.call_function(own, (images, factor))
            shuffled.meta["val"] = node.meta["val"]
            replace(graph.graph, node, shuffled)
            found = True
    return found
