"""A lower bound for every loop on this machine: a step's matmuls and its optimiser, and nothing else."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastvae.models import VAE
from fastvae.ops.internal.mm import mm_of_lists
from fastvae.utils.precision import DTYPES

from . import graphs
from .products import Call, Product, Products, fastest, matmuls, own_matmuls, peak
from .torch_loop import fast_optimizer
from .workload import Contender, Workload

_Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
_LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


class _Chosen(NamedTuple):
    call: Call
    product: Product


class Floor(Contender):
    """The matmuls of the network's forward and backward passes, each by the fastest library, and its optimiser.

    For each layer (in, out) and B rows these are the output B x in x out, with its bias, the weight's gradient
    out x B x in and, except in the first layer, the input's gradient B x out x in. Convolutions do the same by torch's
    own, which allocate their outputs, in the faster of two layouts. Libraries and layouts are measured for each shape
    before the race. Operands and results have the given precision, and the optimiser's are fp32. Nothing is cast,
    gathered, normalised, activated or summed. On a GPU, the steps are replays of CUDA graphs.
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
        forward: list[Call] = []
        backward: list[Call] = []
        products: list[Product] = []
        with torch.no_grad():
            for at, (layer, inputs) in enumerate(_layers(workload, model)):
                if isinstance(layer, nn.Linear):
                    onward, back = _linear(layer, inputs, dtype, not at)
                else:
                    onward, back = _convolution(layer, inputs, dtype, not at)
                forward.append(onward.call)
                backward.append(back.call)
                products += [onward.product, back.product]
        self._calls = [*forward, *reversed(backward)]
        self.products = Products(tuple(products), peak(dtype, workload.device))
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
        for call in self._calls:
            call()
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
    return torch.randn(shape, device=like.device).to(dtype)


def _chosen(shape: str, flops: int, candidates: dict[str, Call], device: torch.device) -> _Chosen:
    library, seconds = fastest(candidates, device)
    return _Chosen(candidates[library], Product(shape, library, flops, seconds))


def _linear(layer: nn.Linear, shape: torch.Size, dtype: torch.dtype, first: bool) -> tuple[_Chosen, _Chosen]:
    """Choose the product of the forward pass, and the one or two of the backward pass."""
    device = layer.weight.device
    weight = layer.weight.detach().to(dtype)
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    inputs = _random(layer.weight, dtype, shape)
    gradient = _random(layer.weight, dtype, torch.Size((shape[0], layer.out_features)))
    rows = len(inputs)
    columns, depth = layer.weight.shape
    flops = 2 * rows * depth * columns
    forward = _chosen(
        f"{rows} x {depth} x {columns}", flops, matmuls(inputs, weight.t(), torch.empty_like(gradient), bias), device
    )
    to_weight = matmuls(gradient.t(), inputs, torch.empty_like(weight))
    shape_to_weight = f"{columns} x {rows} x {depth}"
    if first:
        return forward, _chosen(shape_to_weight, flops, to_weight, device)
    to_inputs = matmuls(gradient, weight, torch.empty_like(inputs))
    pairs = {
        one if one == other else f"{one} and {other}": _both(to_weight[one], to_inputs[other])
        for one in to_weight
        for other in to_inputs
    }
    if own_matmuls(dtype) and device.type == "cpu":  # neither waits for the other
        pairs["fastvae, both at once"] = lambda: mm_of_lists([gradient.t(), gradient], [inputs, weight], [])
    return forward, _chosen(f"{shape_to_weight} and {rows} x {columns} x {depth}", 2 * flops, pairs, device)


def _both(one: Call, other: Call) -> Call:
    def call() -> None:
        one()
        other()

    return call


def _convolution(
    layer: nn.Conv2d | nn.ConvTranspose2d, shape: torch.Size, dtype: torch.dtype, first: bool
) -> tuple[_Chosen, _Chosen]:
    """Choose the layouts of the forward and of the backward pass."""
    device = layer.weight.device
    transposed = isinstance(layer, nn.ConvTranspose2d)
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    options: tuple[Any, ...] = (
        layer.stride, layer.padding, layer.dilation, transposed, layer.output_padding, layer.groups,
    )  # fmt: skip
    forward: dict[str, Call] = {}
    backward: dict[str, Call] = {}
    for layout, memory_format in _LAYOUTS.items():
        weight = layer.weight.detach().to(dtype).contiguous(memory_format=memory_format)
        inputs = _random(layer.weight, dtype, shape).contiguous(memory_format=memory_format)
        forward[layout] = partial(torch.convolution, inputs, weight, bias, *options)
        output = torch.convolution(inputs, weight, bias, *options)
        gradient = torch.randn_like(output)
        backward[layout] = partial(
            torch.ops.aten.convolution_backward, gradient, inputs, weight, None, *options, [not first, True, False]
        )
    small = inputs if transposed else output  # each of its places meets the whole kernel
    flops = 2 * small.numel() * weight[0].numel()
    named = f"{_sizes(inputs)} by {_sizes(weight)}"
    return (
        _chosen(named, flops, forward, device),
        _chosen(f"{named}, backward", flops * (1 if first else 2), backward, device),
    )


def _sizes(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
