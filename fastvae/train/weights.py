"""The weights that a step computes with: the model's own, or copies of them in the type of the matrix products."""

import copy
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..errors import InputError
from ..models import VAE
from .checkpoint import Checkpoint

PRODUCTS = (nn.Linear, _ConvNd)  # the layers that autocast runs in low precision


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


def load_weights(model: VAE, saved: Checkpoint, *, average: bool) -> None:
    """Copy a checkpoint's weights, or their average if it has one, into a model. Raises InputError if one won't fit."""
    model.load_state_dict(fitting(model, saved, average=average))


def fitting(model: VAE, saved: Checkpoint, *, average: bool) -> dict[str, Tensor]:
    """A checkpoint's weights, or their average if it has one. Raises InputError if one does not fit into the model."""
    weights, own = {**saved.part("model"), **(saved.part("ema") if average else {})}, model.state_dict()
    for name in own.keys() | weights.keys():
        has, wants = weights.get(name), own.get(name)
        if has is None or wants is None or has.shape != wants.shape:
            shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (has, wants)]
            raise InputError(
                f"the checkpoint is of another network: {name} is {shapes[0]} there and {shapes[1]} here: "
                "use the settings that it was trained with"
            )
        if has.dtype != wants.dtype and not (has.is_floating_point() and wants.is_floating_point()):
            raise InputError(f"the checkpoint has {name} in {has.dtype}, not {wants.dtype}: use another checkpoint")
    for name, _ in model.named_parameters():
        if not weights[name].isfinite().all():
            raise InputError(f"the checkpoint has {name} with values that are NaN or infinite: use an earlier one")
    return weights


def _twin(model: Model, dtype: torch.dtype) -> Model:
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for module in model.modules():
        if isinstance(module, PRODUCTS):
            for parameter in module.parameters(recurse=False):
                shared.pop(id(parameter), None)
    # What is in the memo is shared; the rest is copied, a tensor that two layers share once.
    twin = copy.deepcopy(model, dict(shared))
    for module in twin.modules():
        if isinstance(module, PRODUCTS):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    return twin
