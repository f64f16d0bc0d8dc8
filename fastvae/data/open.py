"""The images that the settings name, opened: read or found, resized, and decoded into a cache where one is wanted."""

import os
from dataclasses import replace
from pathlib import Path

from fastvae.utils.errors import InputError
from fastvae.utils.machine import cores

from .config import DataConfig
from .datasets.black_and_white import black_and_white
from .datasets.dataset import Dataset
from .datasets.load import load
from .sources.cache_key import cache_key, folder_name
from .sources.decode_cache import open_cache
from .sources.decoded import DecodedSource
from .sources.resize import resized
from .sources.source import Source
from .sources.tensor import TensorSource


def open_dataset(
    config: DataConfig,
    own: Dataset | None = None,
    *,
    channels_last: bool = False,
    show_progress: bool = False,
) -> Dataset:
    """Open the data set that the settings name.

    Args:
        config: the settings: data, data_dir, image_size, channels, crop, on_bad_image and cache are read here.
        own: a data set of the caller's own, in place of the one that ``config.data`` names.
        channels_last: lay images in memory out in channels_last, for a network of convolutions.
        show_progress: draw a bar on stderr while a cache is made.

    Raises:
        InputError: the images are missing or damaged, or the cache cannot be made.

    >>> open_dataset(DataConfig(data="digits", image_size=16)).shape
    (1, 16, 16)
    """
    size = read_size(config)
    if own is None:
        dataset = load(config.data, config.data_dir, size=size, channels=config.channels, on_bad=config.on_bad_image)
    else:
        train, test = (resized(split, size) for split in black_and_white(own.train, own.test, own.name))
        dataset = replace(own, train=train, test=test)
        _check_cache(config, dataset)
    if config.crop == "random":
        dataset = replace(dataset, crop=config.image_size)
    if channels_last:
        dataset = dataset.in_channels_last()
    return cached(config, dataset, show_progress=show_progress)


def cached(config: DataConfig, dataset: Dataset, *, show_progress: bool = False) -> Dataset:
    """Return a data set read from its cache of decoded images, if the settings name one; it is made if need be."""
    if config.cache is None:
        return dataset
    return replace(
        dataset,
        train=_cached(config, config.cache, "train", dataset.train, show_progress),
        test=_cached(config, config.cache, "test", dataset.test, show_progress),
    )


def read_size(config: DataConfig) -> int | None:
    """Return the side that images are read at: a random crop is cut out of images that are larger by 1/7."""
    if config.image_size is None or config.crop == "center":
        return config.image_size
    return -(-config.image_size * 8 // 7)


def _check_cache(config: DataConfig, own: Dataset) -> None:
    """Refuse a cache of images that no file tells apart from others of the same number and size."""
    kinds = (TensorSource, DecodedSource)
    if config.cache is not None and not isinstance(own.train, kinds) and not os.path.exists(own.name):
        raise InputError(
            f"cache keeps images that are read from files, but {own.name} comes from Python: leave out cache"
        )


def _cached(config: DataConfig, cache: Path, split: str, source: Source, show_progress: bool) -> Source:
    """Return a split out of its cache, which is made if need be; images in memory need none."""
    if isinstance(source, TensorSource):
        return source
    key = cache_key(source, split, config.data, config.data_dir, config.on_bad_image)
    return open_cache(source, cache / folder_name(key), key, workers=cores(), show_progress=show_progress)
