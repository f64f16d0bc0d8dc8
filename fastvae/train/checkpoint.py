"""Checkpoints: one safetensors file each, written atomically, checksummed, with nothing in it that could run."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError
from .disk import sync, writing
from .world import World

FORMAT = 2
KEEP = 3
_NAME = re.compile(r"step-(\d{9})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors by name, and plain JSON values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def copy(self) -> "Checkpoint":
        """As it is now: what trains on does not change it."""
        return Checkpoint({name: tensor.detach().clone() for name, tensor in self.tensors.items()}, self.values)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with ``prefix`` and a dot, without it."""
        return {name[len(prefix) + 1 :]: t for name, t in self.tensors.items() if name.startswith(prefix + ".")}


def save(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write ``step-N.safetensors``, and keep only the last few, and nothing that was left half written.

    Raises InputError as :func:`write` does.
    """
    path = folder / f"step-{step:09d}.safetensors"
    write(path, checkpoint)
    with writing(folder):
        for old in (*_files(folder)[KEEP:], *folder.glob("*.partial")):
            old.unlink()
    return path


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write one file so that a crash at any moment leaves either all of it or none.

    Its folder is made, but not the one that this is in: a run's folder that somebody removed is missed.

    Raises:
        InputError: the disk is full, or refuses it otherwise; nothing is left of the file, and others stay.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    values = json.dumps(checkpoint.values, sort_keys=True)
    metadata = {"format": str(FORMAT), "values": values, "sha256": _digest(tensors, values)}
    partial = path.with_suffix(".partial")
    with writing(path, partial):
        path.parent.mkdir(exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode  # what the user's umask allows others; safetensors allows them nothing
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(mode)
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)


def load(path: Path) -> Checkpoint:
    """Read and verify one checkpoint. Raises InputError in one line if it is damaged or of another format."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: what safetensors gives is a view of the mapped file, which changes if somebody changes that.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 -- not a dict
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a readable checkpoint ({_one_line(error)}): use another one") from error
    if metadata.get("format") != str(FORMAT):
        raise InputError(
            f"{path} has checkpoint format {metadata.get('format')}, but this fastvae reads {FORMAT}: "
            "use the version that wrote it"
        )
    values = metadata.get("values", "")
    if metadata.get("sha256") != _digest(tensors, values):
        raise InputError(f"{path} does not match its checksum, so it was damaged after writing: use another one")
    return Checkpoint(tensors, json.loads(values))


def newest(folder: Path) -> tuple[Path, Checkpoint, list[str]]:
    """The newest checkpoint that is whole, and why newer ones were passed over. Raises InputError if there is none."""
    skipped: list[str] = []
    for path in _files(folder):
        try:
            return path, load(path), skipped
        except InputError as error:
            skipped.append(str(error))
    found = f"none of {len(skipped)} is whole; the newest: {skipped[0]}" if skipped else "there is none"
    raise InputError(f"no checkpoint to go on from in {folder} ({found}): start the run anew with another --out")


def of_main(found: Checkpoint | None, world: World) -> Checkpoint | None:
    """The main process' checkpoint in each process, on the CPU."""
    if world.size == 1:
        return found
    outline = found and (found.values, {name: (tensor.shape, tensor.dtype) for name, tensor in found.tensors.items()})
    outline = world.of_main(outline)
    if outline is None:
        return None
    values, forms = outline
    tensors = {}
    for name, (shape, dtype) in forms.items():
        own = torch.empty(shape, dtype=dtype) if found is None else found.tensors[name]
        there = own.to(world.device)
        world.same([there])
        tensors[name] = there.cpu()
    return Checkpoint(tensors, values)


def are_in(folder: Path) -> bool:
    """Whether there is a checkpoint in a folder, whole or not."""
    return bool(_files(folder))


def _files(folder: Path) -> list[Path]:
    """Checkpoints in a folder, newest first."""
    names = [path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name)]
    return sorted(names, reverse=True)


def _digest(tensors: Mapping[str, Tensor], values: str) -> str:
    digest = hashlib.sha256(values.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def flatten_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's ``state_dict`` as tensors by name and JSON values."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, key, value in _entries(state):
        (tensors if isinstance(value, Tensor) else scalars)[f"{index}.{key}"] = value
    groups = [
        {k: v.item() if isinstance(v, Tensor) else v for k, v in group.items()} for group in state["param_groups"]
    ]
    return tensors, {"scalars": scalars, "groups": groups}


def unflatten_optimizer(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> dict[str, Any]:
    """The ``state_dict`` that :func:`flatten_optimizer` took apart."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **values["scalars"]}.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in values["groups"]]
    return {"state": state, "param_groups": groups}


def _entries(state: Mapping[str, Any]) -> Iterator[tuple[int, str, Any]]:
    for index, entries in state["state"].items():
        for key, value in entries.items():
            yield index, key, value
