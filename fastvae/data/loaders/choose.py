"""The choice of a loader: by the setting, the size of the images, and what is installed."""

import importlib.util
import math
import os
from dataclasses import dataclass
from typing import Literal

import torch
from typing_extensions import Unpack

from fastvae.data.sources.decoded import DecodedSource
from fastvae.data.sources.source import Source
from fastvae.data.sources.tensor import TensorSource, in_memory
from fastvae.utils.errors import InputError

from .augment import Augment
from .base import Loader, LoaderOptions
from .dali import MISSING, DaliLoader
from .resident import ResidentLoader

LoaderName = Literal["resident", "dali", "torch"]
_SHARE = {"cuda": 2, "cpu": 4}  # a resident training set takes at most the device's free memory over this


@dataclass(frozen=True)
class LoaderChoice:
    """The loader that was chosen, and why, for people."""

    name: LoaderName
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def loader_of(
    name: LoaderName,
    source: Source,
    *,
    augment: Augment | None,
    workers: int,
    show_progress: bool,
    **options: Unpack[LoaderOptions],
) -> Loader:
    """Make the loader of this name for a source. ``show_progress`` draws a bar where all images are read first."""
    if name == "resident":
        return ResidentLoader(in_memory(source, show=show_progress), augment=augment, **options)
    if name == "dali":
        assert isinstance(source, DecodedSource)
        return DaliLoader(source, augment=augment, **options)
    from .torch_loader import TorchLoader  # noqa: PLC0415 -- torch.utils.data takes a moment

    return TorchLoader(source, augment=augment, workers=workers, **options)


def choose_loader(wanted: LoaderName | Literal["auto"], source: Source, device: torch.device) -> LoaderChoice:
    """Choose the loader for images on a device.

    "auto" keeps images resident if they are in memory already, or fit into a share of the device's free memory. Else
    DALI reads pictures where it is installed, and torch's DataLoader reads everything else.

    Raises:
        InputError: DALI was asked for, but is not installed or cannot read the images; or "resident" was asked for,
            but they do not fit.
    """
    size = math.prod(source.shape) * source.dtype.itemsize
    free = _free(device)
    sizes = f"{_gigabytes(size)} of images, {_gigabytes(free)} free on {device}"
    if wanted == "dali":
        if not isinstance(source, DecodedSource):
            raise InputError(
                "--loader dali decodes JPEG, PNG and WebP pictures, but these images are an array: use --loader auto"
            )
        if not has_dali():
            raise InputError(MISSING)
        return LoaderChoice("dali", "from the settings")
    if wanted == "resident" and size > free:
        raise InputError(f"--loader resident does not fit: {sizes}: use --loader auto, or --cache DIR with it")
    if wanted != "auto":
        return LoaderChoice(wanted, "from the settings")
    if isinstance(source, TensorSource) or size <= free // _SHARE[device.type]:
        return LoaderChoice("resident", sizes)
    if isinstance(source, DecodedSource) and has_dali():
        return LoaderChoice("dali", sizes)
    missing = ", DALI is not installed" if isinstance(source, DecodedSource) else ""
    return LoaderChoice("torch", sizes + missing)


def has_dali() -> bool:
    """Return whether NVIDIA DALI is installed, without importing it."""
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
