"""Checkpoints: one safetensors file each, written atomically, checksummed, with nothing in it that could run."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastvae.data.sources.unpacking_limits import check_unpacked
from fastvae.train.distributed.world import World
from fastvae.utils.errors import InputError, finding
from fastvae.utils.files import check_regular, is_plain, parse_json, real_folder, reason, stored_size, sync

from .safetensors_writer import TYPES, bytes_of, name_of, write_tensors
from .schema import check
from .write_errors import writing

FORMAT = 3
_CHECKSUMS: dict[str, tuple[str, Callable[[], Any]]] = {  # by format; both detect damage, XXH3 in a tenth of the time
    "2": ("sha256", hashlib.sha256),
    "3": ("xxh3_128", xxhash.xxh3_128),
}
KEEP = 3
_DIGITS = 12  # a parameter's index in the file has fewer
_NAME = re.compile(r"step-(\d{9})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to resume: tensors by name, and JSON values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def copy(self, memory: Mapping[str, Tensor] = MappingProxyType({})) -> "Checkpoint":
        """Return a copy that training does not change. It reuses the tensors of ``memory`` that fit."""
        copies = {}
        for name, tensor in self.tensors.items():
            into = memory.get(name)
            if into is None or (into.shape, into.dtype, into.device) != (tensor.shape, tensor.dtype, tensor.device):
                into = torch.empty_like(tensor, memory_format=torch.contiguous_format)
            copies[name] = into.copy_(tensor.detach())
        return Checkpoint(copies, self.values)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with ``prefix`` and a dot, by the rest of their names."""
        return {name[len(prefix) + 1 :]: t for name, t in self.tensors.items() if name.startswith(prefix + ".")}


class Copies:
    """Copies of checkpoints in memory that is reused.

    The system clears new memory page by page, which takes longer than the copy itself (11 of 13 ms for leaky's 14 MB).
    """

    def __init__(self) -> None:
        self._spare: list[Checkpoint] = []

    def take(self, checkpoint: Checkpoint) -> Checkpoint:
        """Copy a checkpoint."""
        return checkpoint.copy(self._spare.pop().tensors if self._spare else {})

    def give_back(self, copy: Checkpoint) -> None:
        """Return a copy of :meth:`take` that is no longer needed."""
        self._spare.append(copy)


def save(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write ``step-N.safetensors``; keep the last ``KEEP`` files up to it, and remove half-written ones.

    Files of later steps stay: the run was resumed from an earlier one. The oldest file is overwritten, so that the
    others stay whole meanwhile. Raises InputError as :func:`write` does.
    """
    path = folder / f"step-{step:09d}.safetensors"

    def earlier() -> list[Path]:
        return [file for file in _files(folder) if file < path]

    kept = earlier()
    write(path, checkpoint, reuse=kept[KEEP - 1] if len(kept) >= KEEP else None)
    with writing(folder):
        for old in (*earlier()[KEEP - 1 :], *folder.glob("step-*.partial"), *folder.glob("best.partial")):
            with suppress(IsADirectoryError):  # somebody else's
                old.unlink()
    return path


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors, contiguous, on the host. A GPU copies them on a stream of their own, beside its training."""
    devices = {tensor.device for tensor in tensors.values() if tensor.is_cuda}
    streams = {device: torch.cuda.Stream(device) for device in devices}
    for stream in streams.values():
        stream.wait_stream(torch.cuda.current_stream(stream.device))  # the stream that made the copies
    hosts = {}
    for name, tensor in tensors.items():
        if tensor.device not in streams:
            hosts[name] = tensor.detach().cpu().contiguous()
            continue
        with torch.cuda.stream(streams[tensor.device]):  # only copies to page-locked memory are asynchronous
            hosts[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            hosts[name].copy_(tensor.detach(), non_blocking=True)
    for stream in streams.values():
        stream.synchronize()
    return hosts


def write(path: Path, checkpoint: Checkpoint, reuse: Path | None = None) -> None:
    """Write one file so that a crash at any moment leaves either all of it or none.

    The ``checkpoints`` folder is made if it is missing; the run's folder is not, as somebody has removed it.

    Args:
        path: the file.
        checkpoint: its content.
        reuse: a file that is no longer needed: it is overwritten and renamed, unless it has a second hard link.

    Raises:
        InputError: the disk is full, or refuses the file otherwise; nothing of it is left, and other files stay.
    """
    tensors = _on_host(checkpoint.tensors)
    values = json.dumps(checkpoint.values, sort_keys=True)
    name, checksum = _CHECKSUMS[str(FORMAT)]
    metadata = {"format": str(FORMAT), "values": values, name: _digest(tensors, values, checksum())}
    partial = path.with_suffix(".partial")
    with writing(path, partial):
        real_folder(path.parent)
        over = reuse is not None and is_plain(reuse)
        if over and reuse is not None:
            os.replace(reuse, partial)
        else:
            partial.unlink(missing_ok=True)
        write_tensors(partial, tensors, metadata, over=over)
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)


def load(path: Path) -> Checkpoint:
    """Read and verify one checkpoint. Raises InputError in one line if it is damaged or of another format."""
    try:
        check_regular(path)
        check_unpacked(str(path), stored_size(path), os.stat(path).st_size)  # a sparse file may claim any size
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Cloned: safetensors gives views of the mapped file, which change if somebody changes the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 -- not a dict
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} is not a readable checkpoint ({reason(error)}): use another one") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in TYPES.values():
            raise InputError(f"{path} has {name} in {tensor.dtype}, which no run keeps: use another checkpoint")
    if metadata.get("format") not in _CHECKSUMS:
        raise InputError(
            f"{path} has checkpoint format {metadata.get('format')}, but this fastvae reads "
            f"{' and '.join(_CHECKSUMS)}: use the version that wrote it"
        )
    name, checksum = _CHECKSUMS[metadata["format"]]
    values = metadata.get("values", "")
    if metadata.get(name) != _digest(tensors, values, checksum()):
        raise InputError(f"{path} does not match its checksum, so it was damaged after writing: use another one")
    try:
        kept = parse_json(values)
    except ValueError as error:
        raise InputError(f"{path} has values that are not JSON ({reason(error)}): use another one") from error
    return Checkpoint(tensors, check(kept, dict[str, Any], f"{path}: its values"))


def newest(folder: Path) -> tuple[Path, Checkpoint, list[str]]:
    """Return the newest whole checkpoint, its file, and why newer files were skipped. Raises InputError if none is."""
    skipped: list[str] = []
    for path in _files(folder):
        try:
            return path, load(path), skipped
        except InputError as error:
            skipped.append(finding(error))
    found = f"none of {len(skipped)} is whole; the newest: {skipped[0]}" if skipped else "there is none"
    raise InputError(f"no checkpoint to go on from in {folder} ({found}): start a new run with another --out")


def broadcast(found: Checkpoint | None, world: World) -> Checkpoint | None:
    """Return rank 0's checkpoint on every rank, on the CPU. Collective."""
    if world.size == 1:
        return found
    forms = found and {name: (list(tensor.shape), name_of(tensor)) for name, tensor in found.tensors.items()}
    outline = world.broadcast_object(found and (found.values, forms))
    if outline is None:
        return None
    values, forms = outline
    tensors = {}
    for name, (shape, dtype) in forms.items():
        own = torch.empty(shape, dtype=TYPES[dtype]) if found is None else found.tensors[name]
        there = own.to(world.device)
        world.broadcast([there])
        tensors[name] = there.cpu()
    return Checkpoint(tensors, values)


def are_in(folder: Path) -> bool:
    """Return whether a folder has a checkpoint, whole or not."""
    return bool(_files(folder))


def _files(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, newest first."""
    names = [path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name)]
    return sorted(names, reverse=True)


def _digest(tensors: Mapping[str, Tensor], values: str, digest: Any) -> str:
    """Return the digest of names, types, shapes, bytes and values in hexadecimal, by a new hashlib object."""
    digest.update(values.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(bytes_of(tensor))
    return str(digest.hexdigest())


def flatten_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's ``state_dict`` into tensors by name and JSON values."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, key, value in _entries(state):
        (tensors if isinstance(value, Tensor) else scalars)[f"{index}.{key}"] = value
    groups = [
        {k: v.item() if isinstance(v, Tensor) else v for k, v in group.items()} for group in state["param_groups"]
    ]
    return tensors, {"scalars": scalars, "groups": groups}


def unflatten_optimizer(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> dict[str, Any]:
    """Rebuild the ``state_dict`` that :func:`flatten_optimizer` split."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **values["scalars"]}.items():
        index, _, key = name.partition(".")
        if not (index.isdecimal() and key and len(index) < _DIGITS):
            raise InputError(
                f"the checkpoint's optimiser has an entry {name!r}, not NUMBER.NAME: use another checkpoint"
            )
        state.setdefault(int(index), {})[key] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in values["groups"]]
    return {"state": state, "param_groups": groups}


def _entries(state: Mapping[str, Any]) -> Iterator[tuple[int, str, Any]]:
    for index, entries in state["state"].items():
        for key, value in entries.items():
            yield index, key, value
