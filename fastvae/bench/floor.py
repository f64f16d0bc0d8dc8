"""What no loop on this machine goes below: the matrix products and the optimiser of a step, and nothing else."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .loops import LOW, fast_optimizer
from .task import Contender, Task


class Floor(Contender):
    """Products of forward (``torch.addmm``) and backward (``torch.mm``) at the network's layers, and its optimiser.

    For each layer (in, out) and B rows: the output B x in x out, the weight's gradient out x B x in and, but for the
    first layer, the input's gradient B x out x in. Operands and results are in the precision; the optimiser's are
    fp32. Nothing is cast, gathered, activated or summed.
    """

    def __init__(self, task: Task, seed: int, precision: str) -> None:
        self.precision, self._steps = precision, task.epoch_steps
        dtype = LOW.get(precision, torch.float32)
        model = task.model(seed)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        self._optimizer = fast_optimizer(task.recipe, model)
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        self._layers = [_Products(layer, task.batch_size, dtype, first=not at) for at, layer in enumerate(layers)]

    @torch.no_grad()
    def epoch(self, _: int) -> Iterator[None]:
        for _ in range(self._steps):
            for layer in self._layers:
                layer.forward()
            for layer in reversed(self._layers):
                layer.backward()
            self._optimizer.step()
            yield


class _Products:
    def __init__(self, layer: nn.Linear, rows: int, dtype: torch.dtype, *, first: bool) -> None:
        def random(*shape: int) -> Tensor:
            return torch.randn(shape, device=layer.weight.device).to(dtype)

        self.weight, self.bias = layer.weight.detach().to(dtype), layer.bias.detach().to(dtype)
        self.inputs, self.gradient = random(rows, layer.in_features), random(rows, layer.out_features)
        self.of_output, self.of_weight = torch.empty_like(self.gradient), torch.empty_like(self.weight)
        self.of_inputs = None if first else torch.empty_like(self.inputs)

    def forward(self) -> None:
        torch.addmm(self.bias, self.inputs, self.weight.t(), out=self.of_output)

    def backward(self) -> None:
        torch.mm(self.gradient.t(), self.inputs, out=self.of_weight)
        if self.of_inputs is not None:
            torch.mm(self.gradient, self.weight, out=self.of_inputs)
