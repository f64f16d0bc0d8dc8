"""The data sets of torchvision, by the names of their classes."""

import inspect
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from fastvae.data.sources.decoded import upright
from fastvae.data.sources.folders import user_folder
from fastvae.data.sources.source import EncodedPictures
from fastvae.data.sources.split import TESTING
from fastvae.utils.errors import InputError

from .checks.regular_files import only_regular_files
from .checks.torchvision_files import check_packed

PREFIX = "torchvision:"


class TorchvisionPictures:
    """A data set of torchvision as :class:`.EncodedPictures`: each picture as a PNG, which loses nothing.

    Args:
        dataset: gives (picture, ...) by index, with one of PIL's pictures.
        label: what it is called, for people.
    """

    def __init__(self, dataset: Any, label: str) -> None:
        self._dataset = dataset
        self._label = label

    def __len__(self) -> int:
        return len(self._dataset)

    def encoded(self, index: int) -> bytes:
        with only_regular_files():
            picture = upright(self._dataset[index][0])
        if picture.mode not in ("L", "RGB"):
            picture = picture.convert("RGB")
        data = BytesIO()
        picture.save(data, "PNG", compress_level=0)  # it is decoded at once
        return data.getvalue()

    def name(self, index: int) -> str:
        return f"{self._label} number {index}"

    def file(self, index: int) -> bytes:  # noqa: ARG002 -- which of its files, the class alone knows
        return os.fsencode(self._dataset.root)


def read_torchvision(name: str, data_dir: Path | None) -> tuple[EncodedPictures, EncodedPictures]:
    """Open ``torchvision:NAME``, a class of torchvision.datasets with splits for training and testing.

    Nothing is downloaded.

    Args:
        name: 'torchvision:SVHN', say. data_dir: what the class calls ``root``; None reads FASTVAE_DATA.

    Raises:
        InputError: there is no such class, it has no splits or no pictures, or its files are missing or damaged, or
            unpack to far more than their sizes.
    """
    datasets = import_module("torchvision.datasets")  # slow to import, so only where it is needed
    kind = name.removeprefix(PREFIX)
    make = getattr(datasets, kind, None) if kind in datasets.__all__ else None
    if make is None:
        raise InputError(f"{name}: torchvision.datasets has no {kind!r}: give the name of a class, as {PREFIX}SVHN")
    parameters = inspect.signature(make).parameters
    if "root" not in parameters or not {"train", "split"} & set(parameters):
        raise InputError(f"{name}: {kind} has no splits for training and testing: give the folder of its pictures")
    folder = user_folder(data_dir)
    if folder is None:
        raise InputError(f"{name}: nothing says where its files are: give the folder (--data-dir or FASTVAE_DATA)")
    check_packed(kind, make, folder)
    if "train" in parameters:
        return _open(name, make, folder, "train", [True]), _open(name, make, folder, "train", [False])
    return _open(name, make, folder, "split", ["train"]), _open(name, make, folder, "split", TESTING)


def _open(name: str, make: Any, folder: Path, keyword: str, values: Sequence[str | bool]) -> TorchvisionPictures:
    """Open a split by the first of the values that the class knows."""
    failure: Exception | None = None
    for value in values:
        try:
            with only_regular_files():
                return _checked(f"{name} {keyword}={value}", make(folder, **{keyword: value}))
        except (InputError, MemoryError):
            raise
        except Exception as error:  # each class has errors of its own
            failure = error
            if not isinstance(error, ValueError):  # it means that the class has no split of this name
                break
    raise InputError(
        f"{name}: {keyword}={value} can't be opened in {folder} ({' '.join(str(failure).split())}): "
        f"{_remedy(make, folder, f'{keyword}={value!r}', failure)}"
    ) from failure


def _remedy(make: Any, folder: Path, split: str, failure: Exception | None) -> str:
    if not isinstance(failure, (OSError, RuntimeError)):  # it has no such split, or needs more arguments
        return "choose another data set, or give the folder of its pictures"
    if "download" not in inspect.signature(make).parameters:
        return "put its files there"
    call = f"torchvision.datasets.{make.__name__}({str(folder)!r}, {split}, download=True)"
    return f"put its files there, as {call} does"


def _checked(label: str, dataset: Any) -> TorchvisionPictures:
    from PIL import Image  # noqa: PLC0415 -- few data sets need it

    drawn = TorchvisionPictures(dataset, label)
    if len(drawn) == 0:
        raise InputError(f"{label}: holds no picture: put its files there again")
    with suppress(OSError):  # the reader reports a broken picture
        sample = dataset[0]
        first = sample[0] if isinstance(sample, tuple) else sample
        if not isinstance(first, Image.Image):
            raise InputError(f"{label}: gives a {type(first).__name__}, not a picture: choose a data set of pictures")
    return drawn
