"""MNIST and the two data sets that have its format, Fashion-MNIST and KMNIST."""

import hashlib
from importlib import import_module
from pathlib import Path

from torch import Tensor

from fastvae.data.sources.folders import find, user_folder
from fastvae.utils.errors import InputError

from .download import download, download_folder
from .idx import read_images

CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}  # torchvision's names for them
# The SHA-256 of the first training images of the data sets that lie about under the same file names.
_FIRST = 100
_KNOWN = {
    "c8d7b3ac57a59fa463cbbcdc21a53485e2990f12ca46d0fef62dd86cadfd67a3": "mnist",
    "9fd5e05238929f78618002dd971c29d7154e418c5e6c5159dcbc48bead93a90f": "fashion-mnist",
}
_STEMS = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")


def read(name: str, data_dir: Path | None) -> tuple[Tensor, Tensor]:
    """Read training and test images, each (N, 1, H, W) uint8. If a folder has both layouts, torchvision's is read.

    Raises:
        InputError: a file is missing or damaged, the two differ in image size, they are known to be of another of these
            data sets, or the download failed.
    """
    folder = user_folder(data_dir)
    if folder is None:
        folder = download_folder(name)
        if None in _locate(folder, CLASSES[name]):
            download(name, folder, lambda fresh: _fetch(CLASSES[name], fresh))
    paths = zip(_STEMS, _locate(folder, CLASSES[name]), strict=True)
    train, test = (_present(name, folder, stem, path) for stem, path in paths)
    train_images, test_images = (read_images(path) for path in (train, test))
    if train_images.shape[2:] != test_images.shape[2:]:
        sizes = [" x ".join(map(str, images.shape[2:])) for images in (train_images, test_images)]
        raise InputError(
            f"{train} has images of {sizes[0]}, but {test} has {sizes[1]}: both must come from one data set"
        )
    found = _KNOWN.get(hashlib.sha256(train_images[:_FIRST].numpy().tobytes()).hexdigest(), name)
    if found != name:
        raise InputError(
            f"{train} has the images of {found}, but {name} was asked for, whose files have the same names: put those "
            f"into {folder / CLASSES[name] / 'raw'}, or use --data {found}"
        )
    return train_images, test_images


def _locate(folder: Path, kind: str) -> list[Path | None]:
    return [
        find(folder, [f"{place}{stem}{packed}" for place in (f"{kind}/raw/", "") for packed in ("", ".gz")])
        for stem in _STEMS
    ]


def _present(name: str, folder: Path, stem: str, path: Path | None) -> Path:
    if path is None:
        raise InputError(
            f"{name}: no {stem} or {stem}.gz in {folder} or {folder / CLASSES[name] / 'raw'}: put it there, "
            "or leave out --data-dir and FASTVAE_DATA to download it"
        )
    return path


def _fetch(kind: str, folder: Path) -> object:
    datasets = import_module("torchvision.datasets")  # slow to import, so only where it is needed
    return getattr(datasets, kind)(folder, download=True)
