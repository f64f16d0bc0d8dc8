"""Images, from where they are to batches on the device.

Source -> Dataset -> Loader -> Batch. A source (``sources/``, found by ``formats/``) reads images of one size by index.
A data set (``datasets/``) is a source for training and one for testing. A loader (``loaders/``) delivers batches in an
order that is a pure function of (seed, epoch). :func:`open_dataset` and :func:`make_loaders` do all of it by a
:class:`DataConfig`; ``docs/data.md`` has the whole picture. Importing this loads neither torch nor torchvision: every
name is loaded at its first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import DataConfig as DataConfig
    from .datasets.dataset import Dataset as Dataset
    from .datasets.load import load as load
    from .deliver import Loaders as Loaders
    from .deliver import make_loaders as make_loaders
    from .loaders.base import Loader as Loader
    from .loaders.batch import Batch as Batch
    from .loaders.resident import ResidentLoader as ResidentLoader
    from .loaders.shuffle import permutation as permutation
    from .open import open_dataset as open_dataset
    from .sources.source import Source as Source
    from .sources.tensor import TensorSource as TensorSource
    from .sources.tensor import in_memory as in_memory

_NAMES = {
    "Batch": "loaders.batch",
    "DataConfig": "config",
    "Dataset": "datasets.dataset",
    "Loader": "loaders.base",
    "Loaders": "deliver",
    "ResidentLoader": "loaders.resident",
    "Source": "sources.source",
    "TensorSource": "sources.tensor",
    "in_memory": "sources.tensor",
    "load": "datasets.load",
    "make_loaders": "deliver",
    "open_dataset": "open",
    "permutation": "loaders.shuffle",
}

__all__ = [
    "Batch",
    "DataConfig",
    "Dataset",
    "Loader",
    "Loaders",
    "ResidentLoader",
    "Source",
    "TensorSource",
    "in_memory",
    "load",
    "make_loaders",
    "open_dataset",
    "permutation",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
