"""Load the weights of a checkpoint into a model, after checking that they fit."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fastvae.models import VAE
from fastvae.utils.errors import InputError

from .checkpoint import Checkpoint

_SHOWN = 3  # tensors that a message names


def load_weights(model: VAE, saved: Checkpoint, *, average: bool) -> None:
    """Copy a checkpoint's weights, or their moving average if it has one, into a model. Raises as :func:`fitting`."""
    model.load_state_dict(fitting(model, saved, average=average))


def fitting(model: VAE, saved: Checkpoint, *, average: bool) -> dict[str, Tensor]:
    """Return a checkpoint's weights, or their moving average if it has one and ``average`` is set.

    Raises InputError if one does not fit into the model, or is not finite.
    """
    weights = as_own(model, {**saved.part("model"), **(saved.part("ema") if average else {})})
    remedy = "use the settings that it was trained with; a callback may have changed the model"
    check_fit(model, weights, "the checkpoint", remedy)
    return weights


def check_fit(model: VAE, weights: Mapping[str, Tensor], label: str, remedy: str) -> None:
    """Raise InputError unless a state dict fits into a model and its weights are finite.

    Args:
        model: the model. weights: the state dict.
        label: where it comes from, for people. remedy: what to do about another network.
    """
    own = model.state_dict()
    different = []
    for name in [*own, *(name for name in weights if name not in own)]:
        has = weights.get(name)
        wants = own.get(name)
        if has is None or wants is None or has.shape != wants.shape:
            shapes = ["missing" if tensor is None else tuple(tensor.shape) for tensor in (has, wants)]
            different.append(f"{name} is {shapes[0]} there and {shapes[1]} here")
    if different:
        more = f", and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise InputError(f"{label} is of another network: {', '.join(different[:_SHOWN])}{more}: {remedy}")
    for name, wants in own.items():
        has = weights[name]
        if has.dtype != wants.dtype and not (has.is_floating_point() and wants.is_floating_point()):
            raise InputError(f"{label} has {name} in {has.dtype}, not {wants.dtype}: use another one")
    for name, _ in model.named_parameters():
        if not weights[name].isfinite().all():
            raise InputError(f"{label} has {name} with values that are NaN or infinite: use an earlier one")


def storable(tensor: Tensor) -> Tensor:
    """Return a tensor as a checkpoint stores it: a complex one as pairs of real and imaginary part, (..., 2)."""
    tensor = tensor.resolve_conj().resolve_neg()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def as_own(model: VAE, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return stored weights with those complex that are so in the model."""
    own = model.state_dict()
    return {name: _as_complex(tensor, own.get(name)) for name, tensor in stored.items()}


def _as_complex(stored: Tensor, own: Tensor | None) -> Tensor:
    """Return a stored tensor in the form of the model's own; one of another shape stays as it is."""
    if own is None or not own.is_complex() or stored.shape != (*own.shape, 2):
        return stored
    return torch.view_as_complex(stored.contiguous())
