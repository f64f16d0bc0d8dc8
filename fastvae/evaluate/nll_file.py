"""The estimates of ``fastvae nll`` so far, in a file: an interrupted command goes on where it was."""

import hashlib
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn
from typing_extensions import TypedDict

from fastvae.train.checkpoint.schema import is_a
from fastvae.utils.errors import InputError
from fastvae.utils.files import read_json, reason, write_text

_EVERY = 5.0  # seconds between two writes, or more: writing takes a twentieth of the time at most
_LOG = logging.getLogger("fastvae")


class Origin(TypedDict):
    """All that decides an estimate, but for rounding. weights, images: checksums (XXH3, 128 bits) of their content."""

    preset: str
    weights: str
    images: str
    samples: int
    seed: int
    precision: str


class Content(TypedDict):
    """The file. nll: minus the log-likelihood of each image, without the likelihood's constant; None: not yet known."""

    format: int
    of: Origin
    nll: list[float | None]


def origin(model: nn.Module, images: Tensor, *, preset: str, samples: int, seed: int, precision: str) -> Origin:
    """Describe estimates of images (N, ...) by a model."""
    weights = xxhash.xxh3_128()
    for name, tensor in model.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        weights.update(_bytes(tensor))
    pixels = xxhash.xxh3_128(f"{images.dtype} {tuple(images.shape)}\n".encode())
    pixels.update(_bytes(images))
    return Origin(
        preset=preset,
        weights=weights.hexdigest(),
        images=pixels.hexdigest(),
        samples=samples,
        seed=seed,
        precision=precision,
    )


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data if tensor.numel() else b""


class NllFile:
    """The estimates of some images, and the file that keeps them.

    values: (N,) fp64; NaN where there is none yet.
    is_kept: False once the file could not be written.
    """

    def __init__(self, path: Path, of: Origin, images: int) -> None:
        self.path = path
        self.values = torch.full((images,), math.nan, dtype=torch.float64)
        self._of = of
        self.is_kept = True
        self._next = 0.0

    @classmethod
    def open(cls, folder: Path, chosen: Path | None, of: Origin, images: int) -> "NllFile":
        """Open the file that the user chose, or one in the run's folder, whose name tells the estimates' origin.

        Raises:
            InputError: the file holds something else, or other estimates; or a chosen one cannot be written.
        """
        name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:12]
        file = cls(chosen or folder / f"nll-{name}.json", of, images)
        file._read()
        if chosen is None or file.known == images:
            return file
        try:
            file._write()
        except OSError as error:
            raise InputError(f"cannot write {chosen} ({reason(error)}): choose another --out") from error
        return file

    @property
    def known(self) -> int:
        """The number of images whose estimate is known."""
        return int((~self.values.isnan()).sum())

    def _read(self) -> None:
        remedy = "delete it, or name another file by --out"
        try:
            content = read_json(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"cannot read {self.path} ({reason(error)}): {remedy}") from error
        except ValueError as error:
            raise InputError(f"{self.path} is not a file of fastvae nll ({reason(error)}): {remedy}") from error
        if not is_a(content, Content) or content["format"] != 1:
            raise InputError(f"{self.path} is not a file of fastvae nll: {remedy}")
        if content["of"] != self._of:
            other = ", ".join(name for name, value in self._of.items() if content["of"].get(name) != value)
            raise InputError(f"{self.path} holds estimates of other {other}: {remedy}")
        if len(content["nll"]) != len(self.values):
            raise InputError(
                f"{self.path} holds {len(content['nll']):,} images, not the {len(self.values):,} of this run: {remedy}"
            )
        known = [math.nan if value is None else float(value) for value in content["nll"]]
        self.values = torch.tensor(known, dtype=torch.float64)

    def save(self, *, now: bool = False) -> None:
        """Write the file if the last time is some seconds ago, or ``now``. Where it cannot be written, say so once."""
        started = time.monotonic()
        if not self.is_kept or (not now and started < self._next):
            return
        try:
            self._write()
        except OSError as error:
            self.is_kept = False
            _LOG.warning(
                "cannot write %s (%s): the estimates are not kept for a later command, which --out FILE would do",
                self.path,
                reason(error),
            )
        ended = time.monotonic()
        self._next = ended + max(_EVERY, 20 * (ended - started))

    def _write(self) -> None:
        known = [None if math.isnan(value) else value for value in self.values.tolist()]
        write_text(self.path, json.dumps(Content(format=1, of=self._of, nll=known)) + "\n")
