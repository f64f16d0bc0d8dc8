"""Makes inputs: whole ones, for cases to spoil, and commands that read them."""

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from PIL import Image
from place import Place
from safetensors.torch import save_file
from torch import Tensor
from undisturbed import TRAIN

from fastvae.train.checkpoint import checkpoint

COUNT = 40  # images of every input
ESCAPES = "\x1b]0;owned\x07\x1b[31m\r"  # a window's title, a colour, and a line that is written over


def images() -> np.ndarray:
    """(COUNT, 8, 8) uint8."""
    return np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8)


def png(number: int = 0, size: int = 8, kind: str = "PNG") -> bytes:
    """A picture's file."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def folder_of_pictures(folder: Path, count: int = COUNT) -> Path:
    """PNG files."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.png").write_bytes(png(number))
    return folder


def train(data: str, *flags: str, steps: int = 3) -> list[str]:
    """A command that trains on some data, on each image of it once."""
    return [*TRAIN, "--data", data, "--max-steps", str(steps), "--batch-size", "16", "--out", "out", *flags]


PICTURES = ("--image-size", "8", "--channels", "1")


def config_of(place: Place, changes: Mapping[str, object] | bytes) -> Path:
    """A run whose config.json has other values, by their dotted names, or other bytes."""
    file = place.copy_run() / "config.json"
    if isinstance(changes, bytes):
        file.write_bytes(changes)
        return file
    content = json.loads(file.read_text())
    for name, value in changes.items():
        *within, last = name.split(".")
        part = content
        for step in within:
            part = part[step]
        part[last] = value
    file.write_text(json.dumps(content))
    return file


def forge(
    run: Path, tensors: Callable[[dict[str, Tensor]], object], values: Callable[[dict[str, Any]], object] | str
) -> Path:
    """Spoil a run's one checkpoint, and give it the checksum of what it is then."""
    (path,) = run.glob("checkpoints/step-*.safetensors")
    found = checkpoint.load(path)
    path.unlink()
    (run / "checkpoints" / "best.safetensors").unlink()
    changed, kept = dict(found.tensors), dict(found.values)
    tensors(changed)
    if not isinstance(values, str):
        values(kept)
        values = json.dumps(kept, sort_keys=True)
    digest = xxhash.xxh3_128(values.encode())
    for name in sorted(changed):
        tensor = changed[name] = changed[name].contiguous()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    save_file(changed, path, {"format": "3", "values": values, "xxh3_128": digest.hexdigest()})
    return path


def fifo(path: Path) -> Path:
    """A named pipe that nobody writes to, in the place of a file."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def link(path: Path, target: Path | str) -> Path:
    """A link in the place of a file."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return path


def python(code: str, *arguments: str) -> Sequence[str]:
    """A command of Python, the current folder left out."""
    return ["python", "-c", f"import sys; sys.path[:1] = []\n{code}", *arguments]
