"""The folder of a run: settings, metrics, TensorBoard events, checkpoints, figures."""

import dataclasses
import json
import os
import platform
import secrets
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fastvae.data import Dataset
from fastvae.train.checkpoint.schema import Description, Line, check, is_a
from fastvae.train.checkpoint.write_errors import writing
from fastvae.train.config import TrainConfig
from fastvae.train.config.stored_settings import check_settings
from fastvae.train.distributed.world import World
from fastvae.utils.errors import InputError
from fastvae.utils.files import open_in_place, parse_json, read_bytes, read_json, real_folder, reason, write_text
from fastvae.utils.lock import Lock
from fastvae.utils.machine import device_name
from fastvae.utils.version import __version__

from .metrics import Metrics

CONFIG = "config.json"
_METRICS_LIMIT = 1 << 30  # bytes: a line is 200, a run of a million epochs has two million
_SCALARS = {"loss": "Total Loss", "nll": "Reconstruction Error", "kl": "KL-Divergence"}


class RunFolder:
    """The folder that a run writes to. Rank 0 alone has one."""

    def __init__(
        self, path: Path, config: TrainConfig, dataset: Dataset, world: World, *, own_model: bool = False
    ) -> None:
        """Make the folder, or open it to resume. Raises InputError if it cannot be used that way, or is in use."""
        self.path = path
        self.metrics_file = path / "metrics.jsonl"
        self._writer: SummaryWriter | None = None
        description = {**_description(config, dataset, world), "own_model": own_model}
        with ExitStack() as undo:
            try:
                path.mkdir(parents=True, exist_ok=True)
                self._lock = Lock(path)
                undo.callback(self._lock.release)
                if os.path.lexists(self.checkpoints):
                    real_folder(self.checkpoints)
                if not config.resume and (path / CONFIG).exists():
                    raise InputError(
                        f"{path} already holds a run: add --resume to go on with it, or choose another --out"
                    )
                write_text(path / CONFIG, json.dumps(description, indent=2) + "\n")
            except OSError as error:
                raise InputError(f"cannot write to {path} ({reason(error)}): choose another --out") from error
            undo.pop_all()

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


def default_path(config: TrainConfig) -> Path:
    """Return ``runs/<preset>-<data>-<time>``."""
    return Path("runs") / f"{config.preset}-{Path(config.data).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.json of a run. Raises InputError if it cannot be read or its settings are not valid."""
    file = path / CONFIG
    try:
        content = read_json(file)
    except FileNotFoundError as error:
        raise InputError(f"{path} holds no run (no {file.name} in it): name the folder of one") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read as a run's settings ({reason(error)}): name the folder of a run"
        ) from error
    description = check(content, Description, str(file))
    return {**description, "settings": check_settings(description["settings"], str(file))}


def _description(config: TrainConfig, dataset: Dataset, world: World) -> dict[str, Any]:
    settings = {name: _plain(value) for name, value in dataclasses.asdict(config).items()}
    return {
        "settings": settings,
        "data": {"shape": list(dataset.shape), "train": len(dataset.train), "test": len(dataset.test)},
        "world_size": world.size,
        "agent": agent(),
        "device": device_name(world.device),
        "versions": {
            "fastvae": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def agent() -> str | None:
    """Return a unique name of the elastic agent (torchrun's or our own) that started this process; None without one.

    The run id alone is not unique: torchrun's is "none" if the user gave none.
    """
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    parent = os.getppid()
    if run is None:
        return None
    try:
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]  # field 22, starttime
    except OSError:
        began = "some time"
    return f"{run}, process {parent} of {platform.node()} since {began}"


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
