"""The images of a run: opened as its settings say, and the loaders that deliver them."""

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import torch
import xxhash
from torch import Tensor

from fastvae.data import Dataset, OrderedLoader, load
from fastvae.data.datasets.dataset import sized
from fastvae.data.loaders.augment import Augment
from fastvae.data.loaders.choose import LoaderChoice, choose_loader
from fastvae.data.sources.decode_cache import cached
from fastvae.data.sources.decoded import Pictures
from fastvae.data.sources.source import Images, Source, read_all
from fastvae.utils.errors import InputError
from fastvae.utils.machine import cores

from .binarize import drawn_for_testing
from .config import ResolvedConfig, TrainConfig
from .distributed.world import World, read_ranks

_EVAL_BATCH = 1000  # images; the noise belongs to the image, so this changes nothing but the speed
_EVAL_VALUES = 3 << 20  # and fewer of large ones, whose activations have to fit


@dataclass(frozen=True)
class Loaders:
    """Of both splits, and how they were chosen."""

    train: OrderedLoader
    test: OrderedLoader
    choice: LoaderChoice


def open_data(config: TrainConfig, world: World, own: Dataset | None = None) -> Dataset:
    """The data set, or one of the caller's own, as the settings have it.

    On each machine one process opens it first, so that a download, or a cache, is made once. Raises InputError, in all
    processes, for what cannot be read.
    """
    for turn in (True, False):
        with world.raise_together():
            if turn == (world.local_rank == 0):
                dataset = _laid_out(config, own_data(config, own) if own is not None else read_data(config))
                if config.cache is not None:
                    dataset = _cached(config, dataset, show=world.is_rank_0)
    return dataset


def check_pixels(config: TrainConfig, dataset: Dataset) -> None:
    """Raise InputError for data that the preset's likelihood does not allow."""
    low, high = dataset.span
    if config.recipe.likelihood == "bernoulli" and (low < 0 or high > 1):
        raise InputError(
            f"{dataset.name} has pixels in [{low:g}, {high:g}], but preset {config.preset} has a Bernoulli likelihood, "
            "which needs [0, 1]: leave out the normalisation, or use --preset gaussian"
        )


def read_data(config: TrainConfig) -> Dataset:
    """What ``--data`` names."""
    dataset = load(
        config.data, config.data_dir, size=_read_size(config), channels=config.channels, on_bad=config.on_bad_image
    )
    return _cropped(config, dataset)


def own_data(config: TrainConfig, dataset: Dataset) -> Dataset:
    """Images of the caller's own, as large as the settings say."""
    size = _read_size(config)
    return _cropped(config, replace(dataset, train=sized(dataset.train, size), test=sized(dataset.test, size)))


def augmentation(config: TrainConfig, dataset: Dataset) -> Augment | None:
    """What is cut and mirrored of training images, if anything."""
    if config.crop == "center" and not config.flip:
        return None
    _, _, height, width = dataset.train.shape
    if height != width:
        raise InputError(f"--flip and --crop need square images, but these are {height} x {width}: add --image-size")
    return Augment(
        dataset.crop or height, height, flip=config.flip, random_crop=config.crop == "random", seed=config.seed
    )


def make_loaders(config: ResolvedConfig, dataset: Dataset, world: World) -> Loaders:
    """The loaders of a run. Raises InputError for a loader that cannot read the images."""
    choice = choose_loader(config.loader, dataset.train, world.device)
    augment = augmentation(config, dataset)
    common: dict[str, Any] = {
        "seed": config.seed, "device": world.device, "rank": world.rank, "world_size": world.size,
        "show": world.is_rank_0,
    }  # fmt: skip
    test = dataset.test
    if config.binarize:
        test = drawn_for_testing(test if isinstance(test, Tensor) else read_all(test), config.seed)
    with world.raise_together():  # what reads all of the images finds the broken ones
        return Loaders(
            choice.loader(
                dataset.train, batch_size=config.batch_size, augment=augment, workers=_workers(config, dataset.train),
                **common,
            ),
            choice.loader(
                test, batch_size=eval_batch(dataset.shape), augment=augment and augment.centred(),
                workers=_workers(config, test), shuffle=False, **common,
            ),
            choice,
        )  # fmt: skip


def eval_batch(shape: tuple[int, ...]) -> int:
    """Images of a shape that are evaluated together."""
    return max(1, min(_EVAL_BATCH, _EVAL_VALUES // math.prod(shape)))


def _laid_out(config: TrainConfig, dataset: Dataset) -> Dataset:
    """Images in memory in channels_last, where the network's convolutions are: no batch has to be turned."""
    if config.recipe.network == "mlp":
        return dataset
    layout = torch.channels_last
    train, test = (
        images.contiguous(memory_format=layout) if isinstance(images, Tensor) else images
        for images in (dataset.train, dataset.test)
    )
    return replace(dataset, train=train, test=test)


def _read_size(config: TrainConfig) -> int | None:
    """The side of what is read; a random crop leaves some of it out."""
    size = config.image_size
    return size if size is None or config.crop == "center" else -(-size * 8 // 7)


def _cropped(config: TrainConfig, dataset: Dataset) -> Dataset:
    return dataset if config.crop == "center" else replace(dataset, crop=config.image_size)


def _workers(config: TrainConfig, images: Images) -> int:
    """Processes that decode; what needs no decoding is read by a thread."""
    if config.workers is not None:
        return config.workers
    if not isinstance(images, Pictures):
        return 0
    return max(1, cores() // (ranks.local_size if (ranks := read_ranks()) else 1))


def _cached(config: TrainConfig, dataset: Dataset, *, show: bool) -> Dataset:
    """Both splits decoded into files, but for what is in memory already."""
    cache = config.cache
    assert cache is not None

    def split(name: str, images: Images) -> Images:
        if isinstance(images, Tensor):
            return images
        data = os.path.abspath(config.data) if os.path.exists(config.data) else config.data
        key: dict[str, str | int] = {"data": data, "split": name, "on_bad_image": config.on_bad_image}
        key |= {"images": len(images), "channels": images.shape[1], "size": images.shape[2]}
        if config.data_dir is not None:
            key["data_dir"] = os.path.abspath(config.data_dir)
        key["files"] = _files(images, config.data)
        folder = cache / f"{name}-{xxhash.xxh3_64_hexdigest(repr(sorted(key.items())).encode())}"
        return cached(images, folder, key, workers=cores(), show_progress=show)

    return replace(dataset, train=split("train", dataset.train), test=split("test", dataset.test))


def _files(images: Source, data: str) -> str:
    """A checksum of the names of images, and of the sizes and times of the files that they are in."""
    digest, stamps = xxhash.xxh3_128(), dict[bytes, str]()
    if not isinstance(images, Pictures):
        return xxhash.xxh3_128_hexdigest(f"{data} {_stamp(os.fsencode(data))}".encode(errors="surrogateescape"))
    for index in range(len(images)):
        file = images.encoded.file(index)
        if file not in stamps:
            stamps.clear()  # of an archive, many follow one another; of single files, a million would be kept
            stamps[file] = _stamp(file)
        digest.update(f"{images.encoded.name(index)} {stamps[file]}\n".encode())
    return digest.hexdigest()


def _stamp(file: bytes) -> str:
    """The size and the time of a file; of FILE.h5:KEY, those of the folder that it is in."""
    try:
        status = os.stat(file)
    except OSError:
        status = os.stat(os.path.dirname(file) or b".")
    return f"{status.st_size} {status.st_mtime_ns}"
