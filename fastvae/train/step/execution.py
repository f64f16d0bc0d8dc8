"""Forward and backward of one batch: images in, sums and gradients out.

There are three ways to run the same operators. ``eager`` is plain autograd. ``traced`` records the operators of forward
and backward once for each batch shape and runs them as a flat graph: no autograd, no modules. ``compiled`` gives that
graph to TorchInductor, which fuses what is between the matmuls.
"""

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.config import Execution

from .inductor import compiling, faults_told
from .loss import TRAIN_STREAM, StepLoss, StepScalars
from .passes.batch_matmuls import batch_matmuls
from .passes.drop_ones import drop_ones
from .passes.fuse_activations import fuse_activations
from .passes.fuse_group_norm import fuse_group_norms, reshape_views
from .passes.fuse_pixels import fuse_pixels

# Inductor would check the strides at every step, though the graph was traced with them: 2 % of leaky's steps on a CPU.
_OPTIONS = {"size_asserts": False, "alignment_asserts": False}
Result = tuple[Tensor, list[Tensor]]


class Step:
    """Computes the sums of a loss and its gradients in the parameters that require one, in the model's order.

    startup_s: the seconds spent so far on tracing and compiling.
    """

    def __init__(
        self, loss: StepLoss, execution: Execution, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._loss = loss
        self._execution = execution
        self._autocast = autocast
        named = dict(loss.named_parameters())
        self._names = [name for name, parameter in named.items() if parameter.requires_grad]
        self._parameters = [named[name] for name in self._names]
        self._constant = {name: tensor.detach() for name, tensor in named.items() if name not in set(self._names)}
        self._constant |= dict(loss.named_buffers())
        self._traces: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self.startup_s = 0.0

    def __call__(
        self, images: Tensor, noise_state: Tensor, row_offset: int, scalars: StepScalars, *, is_full: bool = True
    ) -> Result:
        """Return the sums ``[objective, nll, kl]`` (3,) over the rows, and the gradients of the weighted loss.

        The last batch of an epoch may not be full. It is then traced even if others are compiled: one step in hundreds
        does not earn back the seconds that compiling for its shape takes.
        """
        if self._execution == "eager":
            with self._autocast():
                loss, sums = self._loss(images, noise_state, row_offset, TRAIN_STREAM, scalars)
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
            return sums, list(gradients)
        inputs = [tensor.detach() for tensor in self._parameters]
        inputs += [*self._constant.values(), images, noise_state, *scalars]
        compiled = self._execution == "compiled" and is_full
        key = (images.shape, images.stride(), images.dtype, row_offset, compiled)
        if key not in self._traces:
            started = time.perf_counter()
            with preserve_rng_state(images.device):  # a compiler may draw random inputs to benchmark with
                self._traces[key] = self._trace(inputs, row_offset, compiled=compiled)
            self.startup_s += time.perf_counter() - started
        with torch.no_grad():
            sums, *gradients = self._traces[key](*inputs)
        return sums, gradients

    def _trace(self, inputs: list[Tensor], row_offset: int, *, compiled: bool) -> Callable[..., Any]:
        count = len(self._names)
        names = [*self._names, *self._constant]

        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            parameters = [tensor.requires_grad_() for tensor in tensors[:count]]
            state = dict(zip(names, [*parameters, *tensors[count:]], strict=False))
            images, noise_state, *scalars = tensors[len(names) :]
            with self._autocast():
                arguments = (images, noise_state, row_offset, TRAIN_STREAM, StepScalars(*scalars))
                loss, sums = functional_call(self._loss, state, arguments)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            return sums, *gradients

        # With fake tensors, tracing computes nothing, draws no random numbers and changes no buffer.
        graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
        reshape_views(graph)
        drop_ones(graph)
        batch_matmuls(graph, fused=compiled)
        graph.graph.eliminate_dead_code()
        if not compiled:
            fuse_activations(graph)
            fuse_group_norms(graph)
            fuse_pixels(graph)
        graph.recompile()
        return _compiled(graph, inputs) if compiled else graph


def _compiled(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """Compile a graph by TorchInductor, without torch.compile's guards: the shapes are those of the trace.

    Compiled code is kept beside fastvae's other caches, unless TORCHINDUCTOR_CACHE_DIR names another folder.
    """
    from torch._inductor import compile as inductor  # noqa: PLC0415 -- it takes seconds to import, and few runs compile

    with torch.no_grad(), warnings.catch_warnings(), faults_told(), compiling():
        # torch 2.11 recommends TF32 for fp32 matmuls; --tf32 decides that.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        function: Callable[..., Any] = inductor(graph, list[Any](inputs), _OPTIONS)
    return function
