"""A lower bound for every loop on this machine: a step's matmuls and its optimiser, and nothing else."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastvae.models import VAE
from fastvae.utils.precision import DTYPES

from . import graphs
from .torch_loop import fast_optimizer
from .workload import Contender, Workload

_Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


class Floor(Contender):
    """The matmuls of the network's forward and backward passes, and its optimiser.

    For each layer (in, out) and B rows these are the output B x in x out (``torch.addmm``), the weight's gradient
    out x B x in and, except in the first layer, the input's gradient B x out x in (``torch.mm``). Convolutions do the
    same by torch's own in channels_last, which allocate their outputs. Operands and results have the given precision,
    and the optimiser's are fp32. Nothing is cast, gathered, normalised, activated or summed. On a GPU, the steps are
    replays of CUDA graphs.
    """

    def __init__(self, workload: Workload, seed: int, precision: str) -> None:
        self.precision = precision
        self._steps = workload.epoch_steps
        self._slice = workload.steps
        dtype = DTYPES[precision]
        model = workload.model(seed)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        self._optimizer = fast_optimizer(workload.recipe, model, capturable=workload.device.type == "cuda")
        self._layers = [
            _Matmuls(layer, inputs, dtype, first=not at)
            if isinstance(layer, nn.Linear)
            else _Convolution(layer, inputs, dtype, first=not at)
            for at, (layer, inputs) in enumerate(_layers(workload, model))
        ]
        self._replays = graphs.StepGraphs(self._step) if graphs.captures(workload.device) else None

    def epoch(self, _: int) -> Iterator[None]:
        if self._replays is not None:
            yield from self._replays.take(self._steps, self._slice)
            return
        for _ in range(self._steps):
            self._step()
            yield

    @torch.no_grad()
    def _step(self) -> None:
        for layer in self._layers:
            layer.forward()
        for layer in reversed(self._layers):
            layer.backward()
        self._optimizer.step()


def _layers(workload: Workload, model: VAE) -> list[tuple[_Layer, torch.Size]]:
    """List the layers with matmuls in the order of their calls, each with the shape of its input for a batch."""
    found: list[tuple[_Layer, torch.Size]] = []

    def note(module: _Layer, inputs: tuple[Tensor]) -> None:
        found.append((module, inputs[0].shape))

    hooks = [module.register_forward_pre_hook(note) for module in model.modules() if isinstance(module, _Layer)]
    with torch.no_grad():
        model(workload.images[: workload.batch_size])
    for hook in hooks:
        hook.remove()
    return found


def _random(like: Tensor, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    drawn = torch.randn(shape, device=like.device).to(dtype)
    return drawn if drawn.dim() < 4 else drawn.contiguous(memory_format=torch.channels_last)


class _Matmuls:
    def __init__(self, layer: nn.Linear, inputs: torch.Size, dtype: torch.dtype, *, first: bool) -> None:
        self.weight = layer.weight.detach().to(dtype)
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.inputs = _random(layer.weight, dtype, inputs)
        self.gradient = _random(layer.weight, dtype, torch.Size((inputs[0], layer.out_features)))
        self.output = torch.empty_like(self.gradient)
        self.weight_gradient = torch.empty_like(self.weight)
        self.input_gradient = None if first else torch.empty_like(self.inputs)

    def forward(self) -> None:
        if self.bias is None:
            torch.mm(self.inputs, self.weight.t(), out=self.output)
        else:
            torch.addmm(self.bias, self.inputs, self.weight.t(), out=self.output)

    def backward(self) -> None:
        torch.mm(self.gradient.t(), self.inputs, out=self.weight_gradient)
        if self.input_gradient is not None:
            torch.mm(self.gradient, self.weight, out=self.input_gradient)


class _Convolution:
    def __init__(
        self, layer: nn.Conv2d | nn.ConvTranspose2d, inputs: torch.Size, dtype: torch.dtype, *, first: bool
    ) -> None:
        self.weight = layer.weight.detach().to(dtype)
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.inputs = _random(layer.weight, dtype, inputs)
        self.options: tuple[Any, ...] = (
            layer.stride, layer.padding, layer.dilation, isinstance(layer, nn.ConvTranspose2d), layer.output_padding,
            layer.groups,
        )  # fmt: skip
        self.wanted = (not first, True, False)
        self.gradient = _random(layer.weight, dtype, self.forward().shape)

    def forward(self) -> Tensor:
        return torch.convolution(self.inputs, self.weight, self.bias, *self.options)

    def backward(self) -> None:
        torch.ops.aten.convolution_backward(
            self.gradient, self.inputs, self.weight, None, *self.options, list(self.wanted)
        )
