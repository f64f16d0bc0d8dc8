"""The weights that a step computes with: the model's own, or copies of them in the type of the matrix products."""

import copy
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from fastvae.models.layers import MATMUL_LAYERS

Model = TypeVar("Model", bound=nn.Module)


class WorkingWeights(Generic[Model]):
    """A model with weights in fp32 or fp64, and a twin of it that computes in ``dtype``.

    Autocast casts a weight at each use; here each is cast once a step, by :meth:`refresh` or by the optimiser itself.
    The twin shares all other parameters and all buffers with the model. Without a ``dtype`` it is the model.
    """

    def __init__(self, model: Model, dtype: torch.dtype | None) -> None:
        self.model = model
        self.twin = model if dtype is None else _twin(model, dtype)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.working = [parameter for parameter in self.twin.parameters() if parameter.requires_grad]
        pairs = [(own, twin) for own, twin in zip(self.parameters, self.working, strict=True) if own is not twin]
        # The twin's tensor of each parameter that has one of its own.
        self.copies: Mapping[Tensor, Tensor] = {own: twin.detach() for own, twin in pairs}
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Cast the model's weights into the twin's."""
        if self.copies:
            torch._foreach_copy_(list(self.copies.values()), list(self.copies))

    def state_dict(self) -> dict[str, Tensor]:
        """The model's, not copied."""
        return self.model.state_dict()

    def load_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of such a model."""
        self.model.load_state_dict(weights)
        self.refresh()

    def gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """An optimiser's ``state_dict`` as a checkpoint keeps it."""
        return state

    def scattered(self, state: dict[str, Any]) -> dict[str, Any]:
        """What the optimiser takes of that."""
        return state


def _twin(model: Model, dtype: torch.dtype) -> Model:
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for module in model.modules():
        if isinstance(module, MATMUL_LAYERS):
            for parameter in module.parameters(recurse=False):
                shared.pop(id(parameter), None)
    # What is in the memo is shared; the rest is copied, a tensor that two layers share once.
    twin = copy.deepcopy(model, dict(shared))
    for module in twin.modules():
        if isinstance(module, MATMUL_LAYERS):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    return twin
