"""The images of a run: the data layer's, opened and delivered in each of its processes, and fitted to the model."""

import copy
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from fastvae.data import Dataset, Loaders, make_loaders, open_dataset
from fastvae.models import PRESETS, VAE
from fastvae.nn import Bernoulli, ContinuousBernoulli, Likelihood
from fastvae.utils.errors import InputError

from .binarize import with_test_drawn
from .checkpoint.rng import preserve_rng_state
from .config import ResolvedConfig, TrainConfig
from .distributed.world import World, read_ranks

_NORMALISED = 1.5  # float pixels that lie within [0, this] are some scaling's, larger ones are levels of grey
_EIGHT_BITS = 255
_CHANNELS = (1, 3, 4)
_COPIED = 1 << 30  # bytes of parameters, up to which a model is copied to look at its sizes


def open_data(config: TrainConfig, world: World, own: Dataset | None = None) -> Dataset:
    """Open the data set that the settings name, or the caller's own.

    One process of each machine opens it first, so that a download or a cache is made once. Raises InputError, in all
    processes, for images that cannot be read.
    """
    channels_last = config.recipe.network != "mlp"  # as the convolutions want them: no batch has to be converted
    for opens_first in (True, False):
        with world.raise_together():
            if opens_first == (world.local_rank == 0):
                dataset = open_dataset(config, own, channels_last=channels_last, show_progress=world.is_rank_0)
    return dataset


def check_pixels(preset: str, dataset: Dataset) -> None:
    """Raise InputError for pixels that the preset's networks and likelihood do not allow: all need [0, 1]."""
    kind = PRESETS[preset].likelihood
    has = {"bernoulli": "a Bernoulli likelihood", "gaussian": "a Gaussian whose mean is a sigmoid"}
    if kind in has:
        _check_unit_interval(dataset, f"preset {preset} has {has[kind]}")


def check_own_pixels(likelihood: Likelihood, dataset: Dataset) -> None:
    """Raise InputError for pixels that the likelihood of a model of the user's own does not allow."""
    if isinstance(likelihood, (Bernoulli, ContinuousBernoulli)):
        _check_unit_interval(dataset, "the model has a Bernoulli likelihood")


def check_sizes(model: VAE, dataset: Dataset, device: torch.device) -> None:
    """Raise InputError where the sizes of a user's own encoder or decoder do not fit the images, or one another.

    A copy of the model, in eval mode, takes two training images; a ``latent_shape`` that the model lacks is set to what
    its encoder gives. Nothing is said of a model that cannot be copied, has over 1 GiB of parameters or an ``encode``
    or ``loss`` of its own, or fails for another reason: its first step reports that.
    """
    size = sum(
        parameter.numel() * parameter.element_size() for parameter in model.parameters() if not is_lazy(parameter)
    )
    if (type(model).encode, type(model).loss) != (VAE.encode, VAE.loss) or size > _COPIED:
        return
    _, height, width = dataset.shape
    images = dataset.train.read(range(min(2, len(dataset.train))))[..., :height, :width]
    with preserve_rng_state(device), _python_rng_preserved(), torch.no_grad():  # a model may draw from any of them
        try:
            trial = copy.deepcopy(model).to(device).float().eval()
        except Exception:  # a kept activation or a lock, say: each has an error of its own
            return
        latents = _check_sizes(trial, images.to(device), dataset.name)
    if model.latent_shape is None and latents is not None:
        model.latent_shape = latents


@contextmanager
def _python_rng_preserved() -> Iterator[None]:
    """A context that restores the generators of Python and of numpy."""
    state = random.getstate()
    numpy_state = np.random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _check_sizes(model: VAE, images: Tensor, name: str) -> tuple[int, ...] | None:
    """Return the shape of a latent, where the model gives one."""
    what = f"images of shape {tuple(images.shape[1:])}"
    if min(images.shape[1:3]) > max(_CHANNELS) and images.shape[3] in _CHANNELS:
        what += f", read as (C, H, W): permute {name} if they are (N, H, W, C)"
    try:
        mu, logvar = model.encode(images)
    except Exception as error:  # the model's own code may raise anything
        if "packed encoder output" in str(error):
            raise InputError(f"{_line(error)}: give the encoder mu and logvar, twice as many as latents") from error
        if _is_about_sizes(error):
            raise InputError(f"the encoder does not take {what} ({_line(error)}): mend its sizes") from error
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
                "mend its sizes"
            ) from error
        return found
    try:
        model.likelihood.nll(output, images)
    except (ValueError, RuntimeError) as error:
        if _is_about_sizes(error):
            given = tuple(output.shape[1:]) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"the decoder's output of shape {given} does not fit {what} ({_line(error)}): mend its sizes"
            ) from error
    return found


def _is_about_sizes(error: Exception) -> bool:
    words = str(error)  # strides are the memory format's, which is chosen elsewhere
    return (
        re.search("shape|size|channel|dimension", words) is not None and re.search("stride|contiguous", words) is None
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _check_unit_interval(dataset: Dataset, because: str) -> None:
    low, high = dataset.span
    if low >= 0 and high <= 1:
        return
    if low >= 0 and high > _NORMALISED:
        remedy = "divide them by 255, or save them as uint8, which is read as x/255"
        if high > _EIGHT_BITS:
            remedy = f"divide them by the highest that there can be (65535 for 16 bits), or by {high:g}"
    else:
        remedy = f"leave out the normalisation, or undo it: (x - ({low:.6g})) / {high - low:.6g}"
    raise InputError(
        f"{dataset.name} has {str(dataset.train.dtype).removeprefix('torch.')} pixels in [{low:.9g}, {high:.9g}], but "
        f"{because}, which needs [0, 1]: {remedy}"
    )


def deliver(config: ResolvedConfig, dataset: Dataset, world: World) -> Loaders:
    """Make this process's loaders. Raises InputError, in all processes, for a loader that cannot read the images."""
    ranks = read_ranks()
    with world.raise_together():  # reading all images may find a broken one
        if config.binarize:
            dataset = with_test_drawn(dataset, config.seed)
        return make_loaders(
            config,
            dataset,
            batch_size=config.batch_size,
            seed=config.seed,
            device=world.device,
            rank=world.rank,
            world_size=world.size,
            local_world_size=ranks.local_size if ranks else 1,
            show_progress=world.is_rank_0,
        )
