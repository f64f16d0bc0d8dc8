"""The epoch with the smallest test loss, and its weights."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from . import checkpoint
from .checkpoint import Checkpoint

FILE = "best.safetensors"


class Best:
    """Keeps a copy of the best weights on the device; the file is written with the next checkpoint."""

    def __init__(self) -> None:
        self.loss: float | None = None
        self.epoch = 0
        self._unsaved: Checkpoint | None = None
        self._lock = threading.Lock()

    def offer(self, loss: float, epoch: int, step: int, weights: Callable[[], dict[str, Tensor]]) -> None:
        """Copy the weights of a finished epoch if its test loss is the smallest so far; NaN never is."""
        if loss < (float("inf") if self.loss is None else self.loss):
            self.loss = loss
            self.epoch = epoch
            copied = Checkpoint(weights(), {"epoch": epoch, "step": step}).copy()
            with self._lock:
                self._unsaved = copied

    def save(self, folder: Path) -> None:
        """Write the file, unless it has these weights already. Thread-safe."""
        with self._lock:
            unsaved = self._unsaved
            self._unsaved = None
        if unsaved is not None:
            checkpoint.write(folder / FILE, unsaved)

    def values(self) -> dict[str, Any]:
        """Return what a checkpoint saves, so that a resumed run remembers its best epoch."""
        return {"loss": self.loss, "epoch": self.epoch}

    def load(self, values: Mapping[str, Any]) -> None:
        """Load what :meth:`values` gave."""
        self.loss = values["loss"]
        self.epoch = values["epoch"]
