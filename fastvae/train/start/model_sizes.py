"""The sizes of a user's own model: do its encoder and decoder fit the images, and one another?"""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fastvae.data import Dataset
from fastvae.models import VAE
from fastvae.nn import Bernoulli, ContinuousBernoulli, Likelihood
from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.loop import Loop
from fastvae.train.step.copy_model import copy_model
from fastvae.utils.errors import InputError
from fastvae.utils.terminal import Terminal

_CHANNELS = (1, 3, 4)
_COPIED = 1 << 30  # bytes of parameters, up to which a model is copied to look at its sizes


def check_sizes(model: VAE, dataset: Dataset, device: torch.device, console: Terminal) -> None:
    """Raise InputError where the sizes of a user's own encoder or decoder do not fit the images, or one another.

    A copy of the model, in eval mode, takes two training images; a ``latent_shape`` that the model lacks is set to what
    its encoder gives. Nothing is said of a model that cannot be copied, has over 1 GiB of parameters or an ``encode``
    or ``loss`` of its own, or fails for another reason: its first step reports that.
    """
    size = sum(
        parameter.numel() * parameter.element_size() for parameter in model.parameters() if not is_lazy(parameter)
    )
    if not _is_plain(model) or size > _COPIED:
        return
    _, height, width = dataset.shape
    images = dataset.train.read(range(min(2, len(dataset.train))))[..., :height, :width]
    with preserve_rng_state(device), _python_rng_preserved(), torch.no_grad():  # a model may draw from any of them
        try:
            trial = copy_model(model).to(device).float().eval()
        except Exception:  # a kept activation or a lock, say: each has an error of its own
            return
        latents = _check_sizes(trial, images.to(device), dataset.name, console)
    if model.latent_shape is None and latents is not None:
        model.latent_shape = latents


@contextmanager
def sizes_told(model: VAE, dataset: Dataset, loop: Loop) -> Iterator[None]:
    """Look at the sizes in the first step of a model that was not run before it, and say in one line what does not fit.

    Its ``latent_shape`` is set to what the encoder gives, where it lacks one.

    Raises:
        InputError: as :func:`check_sizes`. Nothing has been trained.
    """
    first = loop.step

    def look(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        assert watched is not None
        watched.remove()
        if inputs and isinstance(inputs[0], Tensor):
            _check_latents(model, tuple(inputs[0].shape[1:]))
        if isinstance(output, Tensor):
            _tell_probabilities(model.likelihood, output, loop.console)

    # A hook would keep a step from being recorded, and on a GPU from being captured.
    is_eager = loop.config.execution == "eager" and (loop.engine.nonfinite.on_host or loop.config.replay == "no")
    is_watched = is_eager and _is_plain(model)
    watched = model.decoder.register_forward_hook(look) if is_watched else None
    try:
        yield
    except (IndexError, RuntimeError, TypeError, ValueError):
        if loop.step == first:
            check_sizes(model, dataset, loop.world.device, loop.console)
        raise
    finally:
        if watched is not None:
            watched.remove()


def _is_plain(model: VAE) -> bool:
    """Return whether the decoder is given what the encoder's posterior draws, and nothing else."""
    return (type(model).encode, type(model).loss) == (VAE.encode, VAE.loss)


def _check_latents(model: VAE, found: tuple[int, ...]) -> None:
    if model.latent_shape is None:
        model.latent_shape = found
    if found != tuple(model.latent_shape):
        raise InputError(
            f"the decoder is given latents of shape {found}, but latent_shape is {tuple(model.latent_shape)}: leave "
            "latent_shape out, or change it"
        )


@contextmanager
def _python_rng_preserved() -> Iterator[None]:
    """Restore the generators of Python and of numpy after the context."""
    state = random.getstate()
    numpy_state = np.random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _check_sizes(model: VAE, images: Tensor, name: str, console: Terminal) -> tuple[int, ...] | None:
    """Return the shape of a latent, where the model gives one."""
    what = f"images of shape {tuple(images.shape[1:])}"
    if images.shape[1:3] == (1, 1):
        what += (
            ", as a table's rows are delivered: begin the encoder with nn.Flatten(), and end the decoder with "
            f"nn.Unflatten(1, {tuple(images.shape[1:])})"
        )
    if min(images.shape[1:3]) > max(_CHANNELS) and images.shape[3] in _CHANNELS:
        what += f", read as (C, H, W): permute {name} if they are (N, H, W, C)"
    try:
        mu, logvar = model.encode(images)
    except Exception as error:  # the model's own code may raise anything
        if "packed encoder output" in str(error):
            raise InputError(
                f"{_line(error)}, given {what}: give the encoder mu and logvar, twice as many as latents"
            ) from error
        if _is_about_sizes(error):
            raise InputError(f"the encoder does not take {what} ({_line(error)}): correct its sizes") from error
        return None
    found = tuple(mu.shape[1:])
    if mu.shape != logvar.shape or (model.latent_shape and found != tuple(model.latent_shape)):
        wanted = tuple(model.latent_shape) if model.latent_shape else "the same"
        raise InputError(
            f"the encoder gives mu of shape {found} and logvar of {tuple(logvar.shape[1:])}, but the latents' shape is "
            f"{wanted}: give it twice as many outputs as there are latents, or change latent_shape"
        )
    try:
        output = model.decoder(mu)
    except Exception as error:
        if _is_about_sizes(error):
            raise InputError(
                f"the decoder does not take latents of shape {found}, as the encoder gives them ({_line(error)}): "
                "correct its sizes"
            ) from error
        return found
    try:
        model.likelihood.nll(output, images)
    except (ValueError, RuntimeError) as error:
        if _is_about_sizes(error):
            given = tuple(output.shape[1:]) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"the decoder's output of shape {given} does not fit {what} ({_line(error)}): correct its sizes"
            ) from error
        return found
    _tell_probabilities(model.likelihood, output, console)
    return found


def _tell_probabilities(likelihood: Likelihood, output: Tensor, console: Terminal) -> None:
    """Say so where the outputs for a likelihood of logits look like probabilities: the loss would be wrong in silence.

    Some logits of an untrained network are negative, or all are 0 if its last layer was initialized with zeros.
    """
    if not isinstance(likelihood, (Bernoulli, ContinuousBernoulli)):
        return
    low, high = torch.aminmax(output)
    if low >= 0 and 0 < high <= 1:
        console.print(
            f"fastvae: the decoder's outputs lie in [{low:.3g}, {high:.3g}], but {type(likelihood).__name__} takes "
            "logits: leave out a sigmoid at the decoder's end",
            style="yellow",
            markup=False,
        )


def _is_about_sizes(error: Exception) -> bool:
    words = str(error)  # strides are the memory format's, which is chosen elsewhere
    return (
        re.search("shape|size|channel|dimension", words) is not None and re.search("stride|contiguous", words) is None
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
