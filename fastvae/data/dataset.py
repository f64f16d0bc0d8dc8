"""What a data set is, and the one door to all of them: :func:`load`."""

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from . import cifar, mnist, npy

NAMES = ("digits", *mnist.CLASSES, "cifar10")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images for training and for testing.

    Args:
        name: what :func:`load` was asked for.
        train, test: (N, C, H, W), both uint8 (0..255, read as x/255) or both fp32.

    >>> import torch
    >>> data = Dataset("bars", torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.full((1, 1, 8, 8), 51).byte())
    >>> data.shape, data.span
    ((1, 8, 8), (0.0, 0.2))
    """

    name: str
    train: Tensor
    test: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @cached_property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest pixel of both splits as a model reads them: uint8 over 255, floats as they are."""
        bounds = torch.stack([bound for images in (self.train, self.test) for bound in torch.aminmax(images)])
        scale = 255 if self.train.dtype == torch.uint8 else 1
        return bounds.min().item() / scale, bounds.max().item() / scale


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Read a data set into memory.

    Args:
        name: 'digits' (1,797 grey 8x8 images inside scikit-learn's wheel, every sixth one for testing), 'mnist',
            'fashion-mnist', 'kmnist', 'cifar10', or the path of an .npy file: (N, H, W), (N, C, H, W), (N, H, W, C)
            with C in 1, 3, 4 or (N, D), of uint8, bool or floats, every tenth image for testing.
        data_dir: the folder that holds the files of a named data set, .gz or not, as published or in torchvision's
            layout. None reads the environment variable FASTVAE_DATA; where that is unset too, torchvision downloads
            into ``~/.cache/fastvae`` (``$XDG_CACHE_HOME/fastvae``). Nothing is ever downloaded into a folder you name.

    Raises:
        InputError: an unknown name, or a file that is missing, damaged or not as described above. One line.

    No file can run code: pickles are read by torchvision alone, after their MD5 sums were found to be the published
    ones.

    >>> data = load("digits")
    >>> data.train.shape, data.test.shape, data.train.dtype, data.span
    (torch.Size([1497, 1, 8, 8]), torch.Size([300, 1, 8, 8]), torch.uint8, (0.0, 1.0))
    """
    if name == "digits":
        train, test = _digits()
    elif name in mnist.CLASSES:
        train, test = mnist.read(name, data_dir)
    elif name == "cifar10":
        train, test = cifar.read(data_dir)
    elif Path(name).suffix.lower() in (".npy", ".npz", ".zip"):
        train, test = npy.read(Path(name))
    else:
        raise InputError(f"unknown data set {name!r}: choose {', '.join(NAMES)}, or the path of an .npy file")
    return Dataset(name, train, test)


def _digits() -> tuple[Tensor, Tensor]:
    datasets = import_module("sklearn.datasets")  # slow to import, so only where it is needed
    images = datasets.load_digits().images  # (1797, 8, 8) fp64, whole numbers 0..16
    return npy.split((images * 255 / 16).round().astype("uint8")[:, None], every=6)
