"""The images of a run: the data layer's, opened and delivered in each of its processes."""

from dataclasses import replace

import torch

from fastvae.data import Dataset, Loaders, make_loaders, open_dataset
from fastvae.data.datasets.fingerprint import fingerprint
from fastvae.data.datasets.load import NoSizeError, check_there
from fastvae.data.open import cached
from fastvae.models import PRESETS
from fastvae.nn import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Likelihood,
)  # fmt: skip
from fastvae.utils.errors import InputError
from fastvae.utils.terminal import Terminal

from .binarize import with_test_drawn
from .config import ResolvedConfig, TrainConfig
from .distributed.ranks import read_ranks
from .distributed.world import World

_NORMALISED = 1.5  # float pixels that lie within [0, this] are some scaling's, larger ones are levels of grey
_EIGHT_BITS = 255
_FIRST = 64  # images that are looked at where any pixels are allowed


def open_data(config: TrainConfig, world: World, own: Dataset | None = None) -> tuple[Dataset, str | None]:
    """Open the data set that the settings name, or the caller's own. Returns it, and on rank 0 its fingerprint.

    One process of each machine opens it first, so that a download or a cache is made once. Raises InputError, in all
    processes, for images that cannot be read.
    """
    channels_last = config.recipe.network != "mlp"  # as the convolutions want them: no batch has to be converted
    content: str | None = None
    for opens_first in (True, False):
        with world.raise_together():
            if opens_first == (world.local_rank == 0):
                if own is None and config.resume and "data" not in config.given:
                    check_there(config.data, config.out)
                shows = world.is_rank_0
                plain = replace(config, cache=None)  # a cache has the same images, without the files they come from
                try:
                    dataset = open_dataset(plain, own, channels_last=channels_last, show_progress=shows)
                except NoSizeError as error:
                    if not config.resume:
                        raise
                    raise InputError(
                        f"{config.out} was started with images that needed no --image-size, but {config.data} has "
                        "pictures of any size: leave --data out, or start a new run with another --out and "
                        "--image-size 64, say"
                    ) from error
                if world.is_rank_0:
                    name = config.data if own is None else None
                    content = fingerprint(dataset, name, resized=config.image_size is not None)
                dataset = cached(config, dataset, show_progress=shows)
    return dataset, content


def check_pixels(preset: str, dataset: Dataset) -> None:
    """Raise InputError for pixels that the preset's networks and likelihood do not allow: all need [0, 1]."""
    kind = PRESETS[preset].likelihood
    has = {"bernoulli": "a Bernoulli likelihood", "gaussian": "a Gaussian whose mean is a sigmoid"}
    if kind in has:
        _check_unit_interval(dataset, f"preset {preset} has {has[kind]}")


def check_own_pixels(likelihood: Likelihood, dataset: Dataset, console: Terminal) -> None:
    """Raise InputError for pixels that the likelihood of a model of the user's own does not allow.

    Where it allows any, say so if those of the first images look like levels of grey.
    """
    if isinstance(likelihood, (Bernoulli, ContinuousBernoulli)):
        _check_unit_interval(dataset, "the model has a Bernoulli likelihood")
    elif dataset.train.dtype.is_floating_point:
        first = dataset.train.read(range(min(_FIRST, len(dataset.train))))
        low, high = (bound.item() for bound in torch.aminmax(first))
        if low >= 0 and high > _NORMALISED:
            console.print(
                f"fastvae: {dataset.name} has {str(dataset.train.dtype).removeprefix('torch.')} pixels up to {high:g}, "
                "which are trained on as they are: divide them to have them in [0, 1]",
                style="yellow",
                markup=False,
            )


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


def check_depth(dataset: Dataset, likelihood: Likelihood) -> None:
    """Raise InputError for pixels that are not the 8-bit values of a discrete likelihood."""
    discrete = (DiscretizedLogistic, DiscretizedLogisticMixture, Categorical)
    if isinstance(likelihood, discrete) and dataset.train.dtype != torch.uint8:
        raise InputError(
            f"{dataset.name} has pixels in {dataset.train.dtype}, but the model's likelihood, "
            f"{type(likelihood).__name__}, is of 8-bit pixels: give them as uint8 (0 to 255), or use another "
            "likelihood (--preset gaussian, say)"
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
