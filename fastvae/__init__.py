"""fastvae: fused ELBO operations and a trainer for variational autoencoders.

Importing it is cheap: every public name is loaded at its first use. Import it before torch: it then chooses how torch's
threads wait, so that programs on the same cores slow each other down less (the variable GOMP_SPINCOUNT).
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._command import begin, shorten_waits
from .utils.version import __version__ as __version__

begin()
shorten_waits()

if TYPE_CHECKING:
    from . import backends as backends
    from . import data as data
    from . import models as models
    from . import nn as nn
    from . import ops as ops
    from . import patch as patch
    from . import reference as reference
    from . import train as train
    from .models import VAE as VAE
    from .models import objectives as objectives
    from .ops import Noise as Noise
    from .train import TrainConfig as TrainConfig
    from .train import Trainer as Trainer
    from .utils.errors import InputError as InputError

_MODULES = ("backends", "data", "models", "nn", "ops", "patch", "reference", "train")
_NAMES = {
    "InputError": "utils.errors",
    "Noise": "ops",
    "TrainConfig": "train",
    "Trainer": "train",
    "VAE": "models",
    "objectives": "models",
}

__all__ = [
    "VAE",
    "InputError",
    "Noise",
    "TrainConfig",
    "Trainer",
    "__version__",
    "backends",
    "data",
    "models",
    "nn",
    "objectives",
    "ops",
    "patch",
    "reference",
    "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fastvae.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"fastvae.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'fastvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
