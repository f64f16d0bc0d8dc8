"""Which loader a data set gets: by what was asked for, its size, and what is installed."""

import importlib.util
import os
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from fastvae.data.sources.decoded import Pictures
from fastvae.data.sources.source import Held, Images, read_all
from fastvae.utils.errors import InputError

from .augment import Augment
from .base import Options, OrderedLoader
from .dali import MISSING, DaliLoader
from .resident import ResidentLoader

LoaderName = Literal["resident", "dali", "torch"]
_SHARE = {"cuda": 2, "cpu": 4}  # a resident data set takes at most the device's free memory over this


@dataclass(frozen=True)
class LoaderChoice:
    """How batches are fetched, and why so, for people."""

    name: LoaderName
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"

    def loader(
        self, images: Images, *, augment: Augment | None, workers: int, show: bool, **options: Unpack[Options]
    ) -> OrderedLoader:
        """The loader of a split. ``show`` draws a bar where all of it is read first."""
        if self.name == "resident":
            held = images if isinstance(images, Tensor) else read_all(images, show=show)
            return ResidentLoader(held, augment=augment, **options)
        if self.name == "dali":
            assert isinstance(images, Pictures)
            return DaliLoader(images, augment=augment, **options)
        from .dataloader import TorchLoader  # noqa: PLC0415 -- torch.utils.data takes a moment

        source = Held(images) if isinstance(images, Tensor) else images
        return TorchLoader(source, augment=augment, workers=workers, **options)


def choose_loader(wanted: LoaderName | Literal["auto"], images: Images, device: torch.device) -> LoaderChoice:
    """The loader for a data set on a device.

    "auto" keeps it resident where it fits into a share of the memory that is free; else DALI reads pictures, where it
    is installed, and torch's DataLoader all else.

    Raises:
        InputError: DALI was asked for, and is not there or cannot read this; or what should be resident does not fit.
    """
    size, free = _bytes(images), _free(device)
    sizes = f"{_gigabytes(size)} of images, {_gigabytes(free)} free on {device}"
    if wanted == "dali":
        if not isinstance(images, Pictures):
            raise InputError(
                "--loader dali decodes JPEG, PNG and WebP pictures, but these images are an array: use --loader auto"
            )
        if not has_dali():
            raise InputError(MISSING)
        return LoaderChoice("dali", "asked for")
    if wanted == "resident" and size > free:
        raise InputError(f"--loader resident does not fit: {sizes}: use --loader auto, or --cache DIR with it")
    if wanted != "auto":
        return LoaderChoice(wanted, "asked for")
    if isinstance(images, Tensor) or size <= free // _SHARE[device.type]:
        return LoaderChoice("resident", sizes)
    if isinstance(images, Pictures) and has_dali():
        return LoaderChoice("dali", sizes)
    missing = ", DALI is not installed" if isinstance(images, Pictures) else ""
    return LoaderChoice("torch", sizes + missing)


def has_dali() -> bool:
    """Whether NVIDIA DALI is installed; does not import it."""
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False


def _bytes(images: Images) -> int:
    count = 1
    for length in images.shape:
        count *= length
    return count * images.dtype.itemsize


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
