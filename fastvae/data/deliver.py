"""The loaders of a data set as the settings want them: one that shuffles and augments, and one for evaluation."""

import math
from dataclasses import dataclass

import torch

from fastvae.utils.errors import InputError
from fastvae.utils.machine import cores

from .config import DataConfig
from .datasets.dataset import Dataset
from .loaders.augment import Augment
from .loaders.base import Loader
from .loaders.choose import LoaderChoice, LoaderName, choose_loader, loader_of
from .sources.decoded import DecodedSource
from .sources.source import Source

_EVAL_BATCH = 1000  # images; the noise belongs to the image, so this changes the speed alone
_EVAL_VALUES = 3 << 20  # pixel values in a batch, which is smaller for large images: their activations have to fit


@dataclass(frozen=True)
class Loaders:
    """The loaders of both splits, and how they were chosen."""

    train: Loader
    test: Loader
    choice: LoaderChoice


def make_loaders(
    config: DataConfig,
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    local_world_size: int = 1,
    show_progress: bool = False,
) -> Loaders:
    """Make the loaders of a data set.

    Args:
        config: the settings: crop, flip, loader and workers are read here.
        dataset: what :func:`fastvae.data.open_dataset` gave for these settings.
        batch_size: rows of a global training batch, over all processes.
        seed: decides the order of the batches, the crops and the flips.
        device: where batches are delivered.
        rank, world_size: this process's place among all of them.
        local_world_size: processes on this machine, which share its cores.
        show_progress: draw a bar on stderr where all images are read first.

    Raises:
        InputError: a loader that cannot read the images, or a number out of its range.

    >>> from fastvae.data import DataConfig, open_dataset
    >>> config = DataConfig(data="digits")
    >>> loaders = make_loaders(config, open_dataset(config), batch_size=100, seed=0)
    >>> len(loaders.train), next(iter(loaders.train)).images.shape
    (15, torch.Size([100, 1, 8, 8]))
    """
    device = torch.device(device)
    choice = choose_loader(config.loader, dataset.train, device)
    train = loader_of(
        choice.name,
        dataset.train,
        augment=_augment(config, dataset, seed),
        workers=_workers(config, dataset.train, local_world_size),
        show_progress=show_progress,
        batch_size=batch_size,
        seed=seed,
        device=device,
        rank=rank,
        world_size=world_size,
    )
    test = make_test_loader(
        config,
        dataset,
        choice.name,
        device=device,
        rank=rank,
        world_size=world_size,
        local_world_size=local_world_size,
        show_progress=show_progress,
    )
    return Loaders(train, test, choice)


def make_test_loader(
    config: DataConfig,
    dataset: Dataset,
    name: LoaderName,
    *,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    local_world_size: int = 1,
    show_progress: bool = False,
) -> Loader:
    """Make the loader of the test images: in their own order, never mirrored, and cropped to their middle.

    Args:
        config, dataset: as for :func:`make_loaders`.
        name: which loader; ``config.loader`` is not asked.
        device, rank, world_size, local_world_size, show_progress: as for :func:`make_loaders`.
    """
    augment = _augment(config, dataset, seed=0)
    return loader_of(
        name,
        dataset.test,
        augment=augment and augment.centred(),
        workers=_workers(config, dataset.test, local_world_size),
        show_progress=show_progress,
        batch_size=eval_batch(dataset.shape),
        seed=0,
        shuffle=False,
        device=device,
        rank=rank,
        world_size=world_size,
    )


def eval_batch(shape: tuple[int, ...]) -> int:
    """Return how many images of a shape (C, H, W) are evaluated together."""
    return max(1, min(_EVAL_BATCH, _EVAL_VALUES // math.prod(shape)))


def _augment(config: DataConfig, dataset: Dataset, seed: int) -> Augment | None:
    """Return how training images are cut and mirrored, if they are."""
    if config.crop == "center" and not config.flip:
        return None
    _, _, height, width = dataset.train.shape
    if height != width:
        raise InputError(f"--flip and --crop need square images, but these are {height} x {width}: add --image-size")
    return Augment(dataset.crop or height, height, flip=config.flip, random_crop=config.crop == "random", seed=seed)


def _workers(config: DataConfig, source: Source, local_world_size: int) -> int:
    """Return how many processes decode; images that need no decoding are read by a thread."""
    if config.workers is not None:
        return config.workers
    return max(1, cores() // local_world_size) if isinstance(source, DecodedSource) else 0
