"""MNIST and the two data sets that have its format, Fashion-MNIST and KMNIST."""

from importlib import import_module
from pathlib import Path

from torch import Tensor

from fastvae.data.sources.folders import find, user_folder
from fastvae.utils.errors import InputError

from .download import download, download_folder
from .idx import read_images

CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}  # torchvision's names for them
_STEMS = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")


def read(name: str, data_dir: Path | None) -> tuple[Tensor, Tensor]:
    """Read training and test images, each (N, 1, H, W) uint8. If a folder has both layouts, torchvision's is read.

    Raises:
        InputError: a file is missing or damaged, the two differ in image size, or the download failed.
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
