"""The training engine. ``python -m fastvae.train`` is its door."""

import importlib
from typing import TYPE_CHECKING, Any

from .config import TrainConfig as TrainConfig
from .config import resolve as resolve

if TYPE_CHECKING:
    from .report.epoch_end import EpochEnd as EpochEnd
    from .run import Outcome as Outcome
    from .trainer import Trainer as Trainer

# Loaded at first use: plots and TensorBoard take a second, which --help should not.
_NAMES = {"EpochEnd": "report.epoch_end", "Outcome": "run", "Trainer": "trainer"}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
