"""The folder of a run: settings, metrics, TensorBoard events, checkpoints, figures."""

import errno
import itertools
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fastvae.train.checkpoint.schema import Line, is_a
from fastvae.train.checkpoint.write_errors import writing
from fastvae.train.config import TrainConfig
from fastvae.utils.errors import InputError
from fastvae.utils.files import open_in_place, parse_json, read_bytes, real_folder, reason, write_text
from fastvae.utils.lock import FILE as LOCK
from fastvae.utils.lock import Lock

from .metrics import Metrics
from .run_config import CONFIG, CONFIG_LIMIT, read_config

_METRICS_LIMIT = 1 << 30  # bytes: a line is 200, a run of a million epochs has two million
_SCALARS = {"loss": "Total Loss", "nll": "Reconstruction Error", "kl": "KL-Divergence"}


class RunFolder:
    """The folder that a run writes to. Rank 0 alone has one.

    It is claimed at the start of a run, and described once there is nothing left that can be refused.

    is_restart: another start of the run left files in it.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        """Make the folder, or open it to resume, and lock it.

        Raises:
            InputError: it cannot be written to, is in use, or holds a run that is not to be resumed. A run that saved
                no checkpoint is overwritten, as nothing of it can be used.
        """
        self.path = path
        self.metrics_file = path / "metrics.jsonl"
        self._writer: SummaryWriter | None = None
        self._before: str | None = None  # the description of the start before this one
        with ExitStack() as undo:
            try:
                self._made = _make(path)
                self._had_lock = os.path.lexists(path / LOCK)
                self._found = frozenset(os.listdir(path))  # before this start
                undo.callback(self._remove_made)
                self._lock = Lock(path)
                undo.callback(self._lock.release)
                if not os.access(path, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, "it may not be written to")
                if os.path.lexists(self.checkpoints):
                    real_folder(self.checkpoints)
                self.is_restart = os.path.lexists(path / CONFIG)
                if self.is_restart and not resume and (not self._lock.is_held or self._has_checkpoint()):
                    raise InputError(
                        f"{path} already holds a run: add --resume to go on with it, or choose another --out"
                    )
                if not resume:
                    self._check_ours()
            except OSError as error:
                raise InputError(f"cannot write to {path} ({reason(error)}): choose another --out") from error
            undo.pop_all()

    @classmethod
    def beside_others(cls, path: Path) -> "RunFolder":
        """Make a new folder, and number it if there is one of that name: two runs may start in the same second."""
        for number in itertools.count(1):
            numbered = path if number == 1 else path.with_name(f"{path.name}-{number}")
            try:
                made = _make(path.parent)
                numbered.mkdir()
            except FileExistsError:
                if not path.parent.is_dir():
                    break
                continue
            except OSError as error:
                raise InputError(f"cannot write to {numbered} ({reason(error)}): choose another --out") from error
            folder = cls(numbered)
            folder._made = [numbered, *made]
            return folder
        raise InputError(f"cannot write to {path} ({path.parent} is not a folder): choose another --out")

    def _check_ours(self) -> None:
        """Refuse a folder with files that a new run would overwrite, unless a start that ended early made them."""
        if self.is_restart:
            read_config(self.path)
            return
        for name in (self.metrics_file.name, self.checkpoints.name):
            if name in self._found:
                raise InputError(
                    f"{self.path} holds {name}, but no {CONFIG} of a run that could go on: choose another --out"
                )

    def _has_checkpoint(self) -> bool:
        return self.checkpoints.is_dir() and any(self.checkpoints.glob("*.safetensors"))

    def has_new_checkpoint(self) -> bool:
        """Return whether this start of a new run saved a checkpoint."""
        return not self.is_restart and self._has_checkpoint()

    def describe(self, description: Mapping[str, Any]) -> None:
        """Write config.json: from here on the folder holds a run. Raises InputError if it cannot be written."""
        file = self.path / CONFIG
        try:
            if self.is_restart:
                self._before = read_bytes(file, CONFIG_LIMIT).decode(errors="replace")
            write_text(file, json.dumps(description, indent=2) + "\n")
        except OSError as error:
            raise InputError(f"cannot write to {self.path} ({reason(error)}): choose another --out") from error

    def abandon(self) -> None:
        """Leave the folder as it was, for a start that took no step and saved nothing: it does not occupy ``out``."""
        self.close()
        with suppress(OSError):
            if self._before is not None:
                write_text(self.path / CONFIG, self._before)
            if self.is_restart:
                return
            for file in (self.path / CONFIG, self.metrics_file, *self.path.glob("events.out.tfevents*")):
                if file.name not in self._found:
                    file.unlink(missing_ok=True)
            self._remove_made()

    def _remove_made(self) -> None:
        """Remove the lock and the folders that this start made, unless somebody wrote to them since."""
        with suppress(OSError):
            if not self._had_lock:
                (self.path / LOCK).unlink(missing_ok=True)
            for folder in self._made:
                folder.rmdir()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def forget_after(self, step: int, epoch: int) -> None:
        """Drop the lines after a checkpoint, and those of its unfinished epoch: resuming would write them again."""
        kept = [line for line in self.metrics() if line["step"] <= step and line["epoch"] <= epoch]
        with writing(self.metrics_file):
            write_text(self.metrics_file, "".join(json.dumps(line) + "\n" for line in kept))
        with writing(self._events):
            self._writer = self._events_writer(purge_step=step + 1)

    def metrics(self) -> list[dict[str, Any]]:
        """Read the lines of metrics.jsonl; a line that a full disk or a power cut left incomplete is ignored."""
        lines = []
        if self.metrics_file.exists():
            with writing(self.metrics_file):
                content = read_bytes(self.metrics_file, _METRICS_LIMIT)
            for line in content.splitlines():
                with suppress(ValueError):
                    measured = parse_json(line)
                    if is_a(measured, Line):
                        lines.append(measured)
        return lines

    def log(self, epoch: int, step: int, split: str, metrics: Metrics, images_per_s: float) -> None:
        """Add one line to metrics.jsonl."""
        line = {"epoch": epoch, "step": step, "split": split, **metrics._asdict(), "images_per_s": images_per_s}
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with writing(self.metrics_file), open_in_place(self.metrics_file, flags, "a") as file:
            file.write(json.dumps(line) + "\n")

    def scalars(self, split: str, metrics: Metrics, step: int) -> None:
        """Write the metrics to TensorBoard, in nats per sample."""
        with writing(self._events):
            for name, value in metrics._asdict().items():
                self._open_writer().add_scalar(f"{split.capitalize()}/{_SCALARS[name]}", value, step)

    def figure(self, name: str, image: Tensor, epoch: int) -> None:
        """Write an image (C, H, W) to TensorBoard."""
        with writing(self._events):
            self._open_writer().add_image(name, image, epoch)

    @property
    def _events(self) -> Path:
        return self.path / "events.out.tfevents"

    def _open_writer(self) -> SummaryWriter:
        if self._writer is None:
            self.path.stat()  # raises if somebody removed the folder, which the writer would make again
            self._writer = self._events_writer()
        return self._writer

    def _events_writer(self, purge_step: int | None = None) -> SummaryWriter:
        # It opens its file by name: a random one, since a name that can be guessed may be a link that somebody made.
        return SummaryWriter(str(self.path), purge_step=purge_step, filename_suffix=f".{secrets.token_hex(8)}")

    def close(self) -> None:
        """Flush the TensorBoard events and unlock the folder."""
        try:
            if self._writer is not None:
                with writing(self._events):
                    self._writer.close()
        finally:
            self._lock.release()


def default_path(config: TrainConfig, *, own_model: bool = False) -> Path:
    """Return ``runs/<preset>-<data>-<time>``, of characters that need no quotes; "model" stands for an own model."""
    data = Path(config.data.rstrip("/")).stem
    plain = re.sub(r"[^\w.]+", "-", data).strip("-.")[:60] or "images"
    return Path("runs") / f"{'model' if own_model else config.preset}-{plain}-{time.strftime('%Y%m%d-%H%M%S')}"


def _make(path: Path) -> list[Path]:
    """Make a folder, and return which folders had to be made for it, the innermost first."""
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    path.mkdir(parents=True, exist_ok=True)
    return missing
