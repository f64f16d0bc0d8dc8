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
    """Keeps a copy of the best weights on the device, which is quick; the file is written with the next checkpoint."""

    def __init__(self) -> None:
        self.loss: float | None = None
        self.epoch = 0
        self._unsaved: Checkpoint | None = None
        self._lock = threading.Lock()

    def offer(self, loss: float, epoch: int, step: int, weights: Callable[[], dict[str, Tensor]]) -> None:
        """Copy the weights of a finished epoch if its loss is the smallest so far; NaN never is."""
        if loss < (float("inf") if self.loss is None else self.loss):
            self.loss, self.epoch = loss, epoch
            copied = Checkpoint(weights(), {"epoch": epoch, "step": step}).copy()
            with self._lock:
                self._unsaved = copied

    def save(self, folder: Path) -> None:
        """Write the file, unless it has these weights already; in any thread."""
        with self._lock:
            unsaved, self._unsaved = self._unsaved, None
        if unsaved is not None:
            checkpoint.write(folder / FILE, unsaved)

    def values(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a run that goes on counts on."""
        return {"loss": self.loss, "epoch": self.epoch}

    def load(self, values: Mapping[str, Any]) -> None:
        """Take over what :meth:`values` gave."""
        self.loss, self.epoch = values["loss"], values["epoch"]
