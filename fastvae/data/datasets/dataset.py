"""What a data set is, and the one door to all of them: :func:`load`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastvae.data import formats
from fastvae.data.sources import npy
from fastvae.data.sources.decoded import OnBad, Pictures, Resized
from fastvae.data.sources.source import Encoded, Held, Images, read_all
from fastvae.utils.errors import InputError

from . import cifar, mnist

NAMES = ("digits", *mnist.CLASSES, "cifar10")
_PART = 1000  # images looked at together


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images for training and for testing.

    Args:
        name: what :func:`load` was asked for.
        train, test: (N, C, H, W), both uint8 (0..255, read as x/255) or both fp32: tensors, or what reads them.
        crop: the side in pixels of what a model sees of them, where that is not all.

    >>> import torch
    >>> data = Dataset("bars", torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.full((1, 1, 8, 8), 51).byte())
    >>> data.shape, data.span
    ((1, 8, 8), (0.0, 0.2))
    """

    name: str
    train: Images
    test: Images
    crop: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image as a model sees it."""
        channels, height, width = self.train.shape[1:]
        return (channels, height, width) if self.crop is None else (channels, self.crop, self.crop)

    @cached_property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest pixel of both splits as a model reads them: uint8 over 255, floats as they are."""
        if self.train.dtype == torch.uint8 and not isinstance(self.train, Tensor):
            return 0.0, 1.0  # which they are within: to look at all would take as long as an epoch
        bounds = [torch.aminmax(part) for images in (self.train, self.test) for part in _parts(images)]
        scale = 255 if self.train.dtype == torch.uint8 else 1
        low, high = (torch.stack(side) for side in zip(*bounds, strict=True))
        return low.min().item() / scale, high.max().item() / scale


def load(
    name: str, data_dir: Path | None = None, *, size: int | None = None, channels: int = 3, on_bad: OnBad = "stop"
) -> Dataset:
    """Open a data set: small ones are read into memory, pictures and large arrays when they are needed.

    Args:
        name: 'digits' (1,797 grey 8x8 images inside scikit-learn's wheel, every sixth one for testing), 'mnist',
            'fashion-mnist', 'kmnist', 'cifar10'; or what :func:`fastvae.data.formats.open_images` reads: an .npy file,
            (N, H, W), (N, C, H, W), (N, H, W, C) with C in 1, 3, 4 or (N, D), of uint8, bool or floats; .npz, .h5; a
            folder of pictures, a list of them, tar shards; a folder of Hugging Face's ``datasets``; 'torchvision:NAME'.
            Where a data set has no test split, that is every tenth image.
        data_dir: the folder that holds the files of a named data set, .gz or not, as published or in torchvision's
            layout. None reads the environment variable FASTVAE_DATA; where that is unset too, torchvision downloads
            into ``~/.cache/fastvae`` (``$XDG_CACHE_HOME/fastvae``). Nothing is ever downloaded into a folder you name.
        size: the side in pixels that each image is cropped to a square and resized to; None leaves arrays as they are.
        channels: 3 or 1, what pictures are decoded to: RGB or grey.
        on_bad: what a picture does that cannot be decoded: "stop" raises InputError; "skip" takes the next one.

    Raises:
        InputError: an unknown name, or a file that is missing, damaged or not as described above. One line.

    No file can run code: pickles are read by torchvision alone, after their MD5 sums were found to be the published
    ones.

    >>> data = load("digits")
    >>> data.train.shape, data.test.shape, data.train.dtype, data.span
    (torch.Size([1497, 1, 8, 8]), torch.Size([300, 1, 8, 8]), torch.uint8, (0.0, 1.0))
    >>> load("digits", size=16).train.shape
    torch.Size([1497, 1, 16, 16])
    """
    if name == "digits":
        return _both(name, _digits(), size)
    if name in mnist.CLASSES:
        return _both(name, mnist.read(name, data_dir), size)
    if name == "cifar10":
        return _both(name, cifar.read(data_dir), size)
    found = formats.open_images(name, data_dir) if name else None  # an empty one is no folder
    if found is None:
        raise InputError(
            f"unknown data set {name!r}: choose {', '.join(NAMES)}, or the path of a folder of pictures or of a file"
        )
    train, test = (opened(split, name, size, channels, on_bad) for split in found)
    return Dataset(name, train, test)


def _both(name: str, splits: tuple[Tensor, Tensor], size: int | None) -> Dataset:
    train, test = (sized(images, size) for images in splits)
    return Dataset(name, train, test)


def opened(
    images: Encoded | Images, name: str, size: int | None = None, channels: int = 3, on_bad: OnBad = "stop"
) -> Images:
    """What a format found, as images of one size. Raises InputError for pictures that no size is given for."""
    if isinstance(images, Tensor) or not isinstance(images, Encoded):
        return sized(images, size)
    if size is None:
        raise InputError(f"{name} has pictures of any size, but a model needs one: add --image-size 64, say")
    return Pictures(images, size, channels, on_bad)


def sized(images: Images, size: int | None) -> Images:
    """Images of another size as the centre square of each, resized; those of memory stay in memory."""
    if size is None or tuple(images.shape[2:]) == (size, size):
        return images
    if isinstance(images, Tensor):
        return read_all(Resized(Held(images), size))
    return Resized(images, size)


def _parts(images: Images) -> Iterator[Tensor]:
    """All of the images, some at a time."""
    if isinstance(images, Tensor):
        yield images
        return
    for start in range(0, len(images), _PART):
        yield images.read(range(start, min(start + _PART, len(images))))


def _digits() -> tuple[Tensor, Tensor]:
    """The images of ``sklearn.datasets.load_digits``, read from its file: scikit-learn takes 2 s to import.

    Each process of a run would wait for it, longer than for all of its epochs over these images.
    """
    found = find_spec("sklearn")
    folders = found.submodule_search_locations if found is not None else None
    file = Path(folders[0], "datasets", "data", "digits.csv.gz") if folders else None
    if file is not None and file.is_file():
        images = np.loadtxt(file, delimiter=",", usecols=range(64))
    else:  # another version may keep it elsewhere
        images = import_module("sklearn.datasets").load_digits().data
    # (1797, 64) fp64, whole numbers 0..16
    return npy.split((images.reshape(-1, 1, 8, 8) * 255 / 16).round().astype("uint8"), every=6)
