"""The patch of scripts modelled on pytorch/examples' VAE: ``loss_function(recon_x, x, mu, logvar)``."""

import functools
import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvae import ops

from ._reconstruction import bernoulli, fits, watched
from ._undo import Function, Patch, Replacement


def patch(namespace: Any) -> Patch:
    """Replace the loss of a namespace and watch its models. Documented at :func:`fastvae.patch.examples`."""
    loss = vars(namespace).get("loss_function")
    if not inspect.isfunction(loss):
        raise ValueError(f"{namespace.__name__}.loss_function must be a function, not {loss!r}: pass its module")
    if len(inspect.signature(loss).parameters) != 4:
        raise ValueError(
            f"{namespace.__name__}.loss_function{inspect.signature(loss)} must take four arguments, "
            "the reconstruction, x, mu and logvar: fastvae.patch.examples fits no other loss"
        )
    models: list[Replacement] = [(model, "forward", watched) for model in vars(namespace).values() if _is_model(model)]
    return Patch((namespace, "loss_function", _elbo), *models)


def _is_model(thing: Any) -> bool:
    if not (inspect.isclass(thing) and issubclass(thing, nn.Module)):
        return False
    return "forward" in vars(thing) and thing.__module__.partition(".")[0] != "torch"


def _elbo(original: Function) -> Function:
    signature = inspect.signature(original)
    checked = False

    @functools.wraps(original)
    def loss_function(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal checked
        recon_x, x, mu, logvar = signature.bind(*args, **kwargs).args
        if not fits(recon_x, x):
            theirs: Tensor = original(recon_x, x, mu, logvar)
            return theirs
        x = x.reshape(recon_x.shape)
        kl = ops.gaussian_kl(mu, logvar, reduction="sum")
        if not checked:
            _check(original(recon_x, x, mu, logvar), recon_x, x, kl)
            checked = True
        return bernoulli(recon_x, x, reduction="sum") + kl

    return loss_function


@torch.no_grad()
def _check(loss: Tensor, recon_x: Tensor, x: Tensor, kl: Tensor) -> None:
    """Raise ValueError unless ``loss`` is the sum of both terms, up to rounding."""
    expected = F.binary_cross_entropy(recon_x, x, reduction="sum") + kl
    rounding = max(1e-4, 8 * torch.finfo(loss.dtype).eps)
    if not torch.allclose(loss.to(expected.dtype), expected, rtol=rounding, atol=0, equal_nan=True):
        raise ValueError(
            f"loss_function gave {loss.item():g}, but binary cross-entropy and KL, each summed, give "
            f"{expected.item():g}: fastvae.patch.examples fits no other loss, so undo it"
        )
