"""A fingerprint of a data set's content, by which a run knows its images again wherever they lie."""

import os
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import xxhash

from fastvae.data.sources.decoded import DecodedSource
from fastvae.data.sources.source import EncodedPictures, Source
from fastvae.data.sources.tensor import TensorSource
from fastvae.utils.errors import InputError
from fastvae.utils.files import open_regular

from .dataset import Dataset

_READ = 1000  # pictures that are read, spread evenly over a split: a second, or some for a slow disk
_ITEMS = 100  # images that are read of a source whose reading may take long
_LOOKED_AT = 100_000  # pictures whose size is asked for
_WHOLE = 64 << 20  # bytes of a file that is read whole; of a larger one, _READ pieces
_PIECE = 1 << 16


def fingerprint(dataset: Dataset, data: str | None, *, resized: bool) -> str:
    """Return a checksum (XXH3, 128 bits) of the images of both splits and their order, but not of their place.

    Pictures: the sizes of up to 100,000 files and the content of up to 1,000, spread evenly. A file of arrays: all of
    it up to 64 MiB, else 1,000 pieces. Images in memory: all of them. Other sources: up to 100 images.

    Args:
        dataset: the images, before they are decoded into a cache.
        data: the name or path that they were opened by; None for images of the caller's own.
        resized: whether arrays were resized as they were opened: their pixels then depend on the machine by rounding.
    """
    digest = xxhash.xxh3_128()
    for source in (dataset.train, dataset.test):
        digest.update(f"{len(source)} {source.dtype} {source.shape[1]}\n".encode())
        if isinstance(source, DecodedSource):
            _add_pictures(digest, source.encoded)
    if isinstance(dataset.train, DecodedSource):
        return str(digest.hexdigest())
    file = None if data is None else _file_of(data)
    if file is not None:
        _add_file(digest, file)
    elif not resized:
        for source in (dataset.train, dataset.test):
            _add_images(digest, source)
    return str(digest.hexdigest())


def _spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` of the numbers 0 .. count - 1, the first and the last among them."""
    return [int(number) for number in np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))]


def _add_pictures(digest: Any, pictures: EncodedPictures) -> None:
    last: bytes | None = None
    size = 0
    for index in _spread(len(pictures), _LOOKED_AT):
        file = pictures.file(index)
        if file != last:  # pictures of one archive follow one another
            last = file
            size = 0
            with suppress(OSError):
                size = os.stat(file).st_size if os.path.isfile(file) else 0
        digest.update(f"{size}\n".encode())
    for index in _spread(len(pictures), _READ):
        try:
            content = pictures.encoded(index)
        except (OSError, InputError):
            content = b"unreadable"
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)


def _file_of(data: str) -> str | None:
    """Return the file of arrays that a path names: FILE, or FILE of FILE:KEY."""
    path = os.path.expanduser(data)
    return next((file for file in (path, path.rpartition(":")[0]) if os.path.isfile(file)), None)


def _add_file(digest: Any, path: str) -> None:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(f"{size}\n".encode())
        if size <= _WHOLE:
            while piece := file.read(_PIECE):
                digest.update(piece)
            return
        for number in _spread(size // _PIECE, _READ):
            file.seek(number * _PIECE)
            digest.update(file.read(_PIECE))


def _add_images(digest: Any, source: Source) -> None:
    if isinstance(source, TensorSource):
        parts = (source.images[start : start + _READ] for start in range(0, len(source), _READ))
    else:
        parts = (source.read([index]) for index in _spread(len(source), _ITEMS))
    for images in parts:
        digest.update(images.detach().cpu().contiguous(memory_format=torch.contiguous_format).numpy().data)
