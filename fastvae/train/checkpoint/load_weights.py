"""Load the weights of a checkpoint into a model, after checking that they fit."""

import torch
from torch import Tensor

from fastvae.models import VAE
from fastvae.utils.errors import InputError

from .checkpoint import Checkpoint


def load_weights(model: VAE, saved: Checkpoint, *, average: bool) -> None:
    """Copy a checkpoint's weights, or their moving average if it has one, into a model. Raises as :func:`fitting`."""
    model.load_state_dict(fitting(model, saved, average=average))


def fitting(model: VAE, saved: Checkpoint, *, average: bool) -> dict[str, Tensor]:
    """Return a checkpoint's weights, or their moving average if it has one and ``average`` is set.

    Raises InputError if one does not fit into the model, or is not finite.
    """
    own = model.state_dict()
    stored = {**saved.part("model"), **(saved.part("ema") if average else {})}
    weights = {name: _as_complex(tensor, own.get(name)) for name, tensor in stored.items()}
    for name in own.keys() | weights.keys():
        has = weights.get(name)
        wants = own.get(name)
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


def storable(tensor: Tensor) -> Tensor:
    """Return a tensor as a checkpoint stores it: a complex one as pairs of real and imaginary part, (..., 2)."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _as_complex(stored: Tensor, own: Tensor | None) -> Tensor:
    """Return a stored tensor in the form of the model's own; one of another shape stays as it is."""
    if own is None or not own.is_complex() or stored.shape != (*own.shape, 2):
        return stored
    return torch.view_as_complex(stored.contiguous())
