"""Valid inputs, which cases then spoil, and the commands that read them."""

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
ESCAPES = "\x1b]0;owned\x07\x1b[31m\r"  # sets a window's title and a colour, and overwrites a line


def images() -> np.ndarray:
    """Return random pixels, (COUNT, 8, 8) uint8."""
    return np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8)


def png(number: int = 0, size: int = 8, kind: str = "PNG") -> bytes:
    """Return an image file of random pixels."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def folder_of_pictures(folder: Path, count: int = COUNT) -> Path:
    """Make a folder of PNG files and return it."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.png").write_bytes(png(number))
    return folder


def train(data: str, *flags: str, steps: int = 3) -> list[str]:
    """Return a command that trains on some data for a few steps."""
    return [*TRAIN, "--data", data, "--max-steps", str(steps), "--batch-size", "16", "--out", "out", *flags]


PICTURES = ("--image-size", "8", "--channels", "1")


def config_of(place: Place, changes: Mapping[str, object] | bytes) -> Path:
    """Copy the run and change its config.json: values by dotted names, or all bytes. Returns the file."""
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
    """Forge a run's only checkpoint with a correct checksum, and return its path."""
    (path,) = run.glob("checkpoints/step-*.safetensors")
    found = checkpoint.load(path)
    path.unlink()
    (run / "checkpoints" / "best.safetensors").unlink()
    changed = dict(found.tensors)
    kept = dict(found.values)
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
    """Replace a file by a named pipe that nobody writes to."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def link(path: Path, target: Path | str) -> Path:
    """Replace a file by a link."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return path


def python(code: str, *arguments: str) -> Sequence[str]:
    """Return a command that runs Python code without the current folder in its search path."""
    return ["python", "-c", f"import sys; sys.path[:1] = []\n{code}", *arguments]
