"""Forward and backward of one batch: images in, sums and gradients out.

Three ways to run the same operators. ``eager`` is autograd as it comes. ``traced`` records the operators of forward
and backward once for each shape of a batch and runs them as a list: no autograd, no modules. ``compiled`` gives that
list to TorchInductor, which fuses what stands between the matrix products.
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

from .inductor import compiling
from .loss import TRAIN_STREAM, StepLoss, StepScalars
from .passes.batch_matmuls import batch_matmuls
from .passes.drop_ones import drop_ones
from .passes.fuse_activations import fuse_activations
from .passes.fuse_group_norm import fuse_group_norms, reshape_views
from .passes.fuse_pixels import fuse_pixels

# Strides are asked after at every step of a graph that was recorded with them, for 2 % of leaky's steps on a CPU.
_OPTIONS = {"size_asserts": False, "alignment_asserts": False}
Result = tuple[Tensor, list[Tensor]]


class Step:
    """Sums and gradients of an objective in the parameters of its model that require them, in the model's order.

    startup_s: seconds spent so far on tracing and compiling.
    """

    def __init__(
        self, objective: StepLoss, execution: Execution, context: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._objective, self._execution, self._context = objective, execution, context
        named = dict(objective.named_parameters())
        self._names = [name for name, parameter in named.items() if parameter.requires_grad]
        self._parameters = [named[name] for name in self._names]
        self._constant = {name: tensor.detach() for name, tensor in named.items() if name not in set(self._names)}
        self._constant |= dict(objective.named_buffers())
        self._traces: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self.startup_s = 0.0

    def __call__(
        self, images: Tensor, noise_state: Tensor, row_offset: int, dials: StepScalars, *, is_full: bool = True
    ) -> Result:
        """The sums of the terms over the rows, and the gradients of the weighted loss.

        A batch that is not full, the last one of an epoch, is traced where others are compiled: a step of hundreds
        does not earn the seconds that compiling for its shape takes.
        """
        if self._execution == "eager":
            with self._context():
                loss, sums = self._objective(images, noise_state, row_offset, TRAIN_STREAM, dials)
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
            return sums, list(gradients)
        inputs = [tensor.detach() for tensor in self._parameters]
        inputs += [*self._constant.values(), images, noise_state, *dials]
        compiled = self._execution == "compiled" and is_full
        key = (images.shape, images.stride(), images.dtype, row_offset, compiled)
        if key not in self._traces:
            started = time.perf_counter()
            with preserve_rng_state(images.device):  # a compiler may draw what it tries things on
                self._traces[key] = self._trace(inputs, row_offset, compiled=compiled)
            self.startup_s += time.perf_counter() - started
        with torch.no_grad():
            sums, *gradients = self._traces[key](*inputs)
        return sums, gradients

    def _trace(self, inputs: list[Tensor], row_offset: int, *, compiled: bool) -> Callable[..., Any]:
        count, names = len(self._names), [*self._names, *self._constant]

        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            parameters = [tensor.requires_grad_() for tensor in tensors[:count]]
            state = dict(zip(names, [*parameters, *tensors[count:]], strict=False))
            images, noise_state, *dials = tensors[len(names) :]
            with self._context():
                arguments = (images, noise_state, row_offset, TRAIN_STREAM, StepScalars(*dials))
                loss, sums = functional_call(self._objective, state, arguments)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            return sums, *gradients

        # Fake tensors: tracing computes nothing, draws no random numbers and changes no buffer.
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
    """Straight to TorchInductor: no guards to check at each step, since the shapes are the trace's own.

    Compiled code is kept beside fastvae's other caches, unless TORCHINDUCTOR_CACHE_DIR names a place.
    """
    from torch._inductor import compile as inductor  # noqa: PLC0415 -- seconds to import, for runs that compile

    with torch.no_grad(), warnings.catch_warnings(), compiling():
        # torch 2.11 recommends TF32 for fp32 products; --tf32 decides that.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        function: Callable[..., Any] = inductor(graph, list[Any](inputs), _OPTIONS)
    return function
