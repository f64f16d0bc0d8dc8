"""A training step as a flat graph of operators: no autograd, no modules, no Python of the model's own."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from fastvae.train.step.inductor import compiling, faults_told
from fastvae.train.step.passes.batch_matmuls import batch_matmuls
from fastvae.train.step.passes.call_bindings import call_bindings
from fastvae.train.step.passes.common import propagate_strides
from fastvae.train.step.passes.drop_copies import drop_copies
from fastvae.train.step.passes.drop_ones import drop_ones
from fastvae.train.step.passes.fuse_activations import fuse_activations
from fastvae.train.step.passes.fuse_group_norm import fuse_group_norms, reshape_views
from fastvae.train.step.passes.fuse_pixels import fuse_pixels
from fastvae.train.step.passes.onednn_matmuls import onednn_matmuls
from fastvae.train.step.passes.replace_pixel_shuffles import replace_pixel_shuffles

# Inductor would check the strides at every step, though the graph was traced with them: 2 % of leaky's steps on a CPU.
_OPTIONS = {"size_asserts": False, "alignment_asserts": False}


def record(function: Callable[..., Any], inputs: Sequence[Tensor], *, compiled: bool) -> Callable[..., Any]:
    """Record the operators of ``function(*inputs)`` once, fuse them, and return the graph that runs them.

    The function takes tensors and returns a tuple of tensors and None. Recording computes nothing, draws no random
    numbers and changes no tensor, because the tensors are fake meanwhile.

    Args:
        function: the step; it must do the same for all inputs of these shapes, as nothing checks that it does.
        inputs: tensors of the step's shapes, strides and types.
        compiled: give the graph to TorchInductor, which fuses what is between the matmuls.
    """
    graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    reshape_views(graph)
    drop_ones(graph)
    batch_matmuls(graph, fused=compiled)
    graph.graph.eliminate_dead_code()
    if not compiled:
        fuse_activations(graph)
        # One lets the next know that its images are in channels_last.
        while fuse_group_norms(graph) or replace_pixel_shuffles(graph):
            propagate_strides(graph)
        drop_copies(graph)
        fuse_pixels(graph)
    onednn_matmuls(graph, fused=compiled)
    if not compiled:
        call_bindings(graph)
    graph.recompile()
    return _compiled(graph, inputs) if compiled else graph


def _compiled(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Compile a graph by TorchInductor, without torch.compile's guards: the shapes are those of the trace.

    Compiled code is kept beside fastvae's other caches, unless TORCHINDUCTOR_CACHE_DIR names another folder.
    """
    from torch._inductor import compile as inductor  # noqa: PLC0415 -- it takes seconds to import, and few runs compile

    with torch.no_grad(), warnings.catch_warnings(), faults_told(), compiling():
        # torch 2.11 recommends TF32 for fp32 matmuls; --tf32 decides that.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        function: Callable[..., Any] = inductor(graph, list[Any](inputs), _OPTIONS)
    return function
