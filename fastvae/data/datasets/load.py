"""Every data set by its name or its path, wherever the program is started: :func:`load`."""

import os
from pathlib import Path

from torch import Tensor

from fastvae.data.formats import open_images
from fastvae.data.formats.torchvision import PREFIX
from fastvae.data.sources.decoded import DecodedSource, OnBadImage
from fastvae.data.sources.folders import path_of
from fastvae.data.sources.resize import resized
from fastvae.data.sources.source import EncodedPictures, Source
from fastvae.data.sources.tensor import TensorSource
from fastvae.utils.errors import InputError

from . import cifar, digits, mnist
from .black_and_white import black_and_white
from .dataset import Dataset

NAMES = ("digits", *mnist.CLASSES, "cifar10")


class NoSizeError(InputError):
    """Pictures of any size, and no size to resize them to."""


def load(
    name: str, data_dir: Path | None = None, *, size: int | None = None, channels: int = 3, on_bad: OnBadImage = "stop"
) -> Dataset:
    """Open a data set: small ones are read into memory, pictures and large arrays when they are needed.

    Args:
        name: 'digits' (1,797 grey 8x8 images inside scikit-learn's wheel, every sixth one for testing), 'mnist',
            'fashion-mnist', 'kmnist', 'cifar10'; or what :func:`fastvae.data.formats.open_images` reads: an .npy file,
            (N, H, W), (N, C, H, W), (N, H, W, C) with C in 1, 3, 4 or (N, D), of uint8, bool or floats; .npz, .h5; a
            folder of pictures, a list of them, tar shards; a folder of Hugging Face's ``datasets``; 'torchvision:NAME'.
            Where a data set has no test split, every tenth image is for testing.
        data_dir: the folder that holds the files of a named data set, .gz or not, as published or in torchvision's
            layout. None reads the environment variable FASTVAE_DATA; where that is unset too, torchvision downloads
            into ``~/.cache/fastvae`` (``$XDG_CACHE_HOME/fastvae``). Nothing is ever downloaded into a folder you name.
        size: the side in pixels that each image is cropped to a square and resized to; None leaves arrays as they are.
        channels: 3 (RGB) or 1 (grey), which pictures are decoded to.
        on_bad: what to do with a picture that cannot be decoded: "stop" raises InputError; "skip" uses the next one.

    Raises:
        InputError: an unknown name, or a file that is missing, damaged or not as described above. One line.

    No file can run code: pickles are read by torchvision alone, after their MD5 sums were found to be the published
    ones.

    >>> data = load("digits")
    >>> data.train.shape, data.test.shape, data.train.dtype, data.span
    ((1497, 1, 8, 8), (300, 1, 8, 8), torch.uint8, (0.0, 1.0))
    >>> load("digits", size=16).train.shape
    (1497, 1, 16, 16)
    """
    if name == "digits":
        return _in_memory(name, digits.read(), size)
    if name in mnist.CLASSES:
        return _in_memory(name, mnist.read(name, data_dir), size)
    if name == "cifar10":
        return _in_memory(name, cifar.read(data_dir), size)
    found = open_images(name, data_dir) if name else None  # an empty name would be the current folder
    if found is None:
        raise InputError(
            f"unknown data set {name!r}: choose {', '.join(NAMES)}, or the path of a folder of pictures or of a file"
        )
    if isinstance(found[0], EncodedPictures):
        train, test = (as_one_size(split, name, size, channels, on_bad) for split in found)
        return Dataset(name, *black_and_white(train, test, name))
    train, test = (resized(split, size) for split in black_and_white(*found, name))
    return Dataset(name, train, test)


def _in_memory(name: str, splits: tuple[Tensor, Tensor], size: int | None) -> Dataset:
    train, test = (resized(TensorSource(images), size) for images in splits)
    return Dataset(name, train, test)


def as_one_size(
    images: EncodedPictures | Source,
    name: str,
    size: int | None = None,
    channels: int = 3,
    on_bad: OnBadImage = "stop",
) -> Source:
    """Return what a format found as a source. Raises NoSizeError for pictures without a size to resize them to."""
    if not isinstance(images, EncodedPictures):
        return resized(images, size)
    if size is None:
        raise NoSizeError(f"{name} has pictures of any size, but a model needs one size: add --image-size 64, say")
    return DecodedSource(images, size, channels, on_bad)


def located(data: str) -> str:
    """Return a data set's name as it is, and a path as an absolute one.

    >>> located("mnist"), located("/scratch/pics")
    ('mnist', '/scratch/pics')
    """
    if not data or data in NAMES or data.startswith(PREFIX):
        return data
    return os.path.join(os.getcwd(), os.path.expanduser(data))


def check_there(data: str, run: object) -> None:
    """Raise InputError where the images of a run are not at the path that its settings have."""
    path_of(data)  # raises for a name that no file can have
    path = located(data)
    if path == data and not os.path.isabs(data):  # a name
        return
    if os.path.exists(path) or any(mark in path for mark in "{:"):  # of shards, or of an array in a file
        return
    why = "" if os.path.isabs(os.path.expanduser(data)) else ", relative to the folder where it was started"
    raise InputError(f"{path} is not there, but {run} has its images in {data}{why}: name their place with --data")
