"""The weights that a new run begins with: those of another run, or of a file (``--init-from``)."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastvae.data.sources.unpacking_limits import as_input_error, check_unpacked
from fastvae.models import VAE
from fastvae.train.checkpoint import checkpoint
from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.train.checkpoint.load_weights import as_own, check_fit
from fastvae.train.distributed.world import World
from fastvae.utils.errors import InputError
from fastvae.utils.files import check_regular, reason, stored_size
from fastvae.utils.terminal import Terminal

_REMEDY = "give the settings of that network, or other weights"


def load_initial(model: VAE, path: Path, world: World, console: Terminal) -> None:
    """Load the weights of a run or a file into a model, on every rank; rank 0 reads them, and says so. Collective.

    Raises:
        InputError: as :func:`read_weights` does, or they do not fit into the model; the first names that differ.
    """
    with world.raise_together():
        found = Checkpoint(read_weights(path), {}) if world.is_rank_0 else None
    found = checkpoint.broadcast(found, world)
    assert found is not None
    with world.raise_together():
        weights = as_own(model, found.tensors)
        check_fit(model, weights, str(path), _REMEDY)
        model.load_state_dict(weights)
    console.print(f"fastvae: begins with the weights in {path}", markup=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict. Nothing in the file is executed.

    Args:
        path: the folder of a run, whose newest checkpoint is read; or a file: a checkpoint of a run, another
            ``.safetensors``, or what ``torch.save`` wrote, a state dict or a dictionary that holds one, which is read
            with ``weights_only``. Where a run kept an average of its weights, that is returned.

    Raises:
        InputError: there is no such run or file, it is damaged or larger than may be, or holds no state dict.
    """
    if path.is_dir():
        folder = path / "checkpoints"
        if not checkpoint.are_in(folder):
            raise InputError(f"--init-from {path} holds no checkpoint of a run: name the folder of a run, or a file")
        return _of_run(checkpoint.newest(folder)[1])
    if not path.exists():
        raise InputError(f"--init-from {path} is not there: name the folder of a run, or a .safetensors or .pt file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_torch(path)


def _of_run(found: Checkpoint) -> dict[str, Tensor]:
    return {**found.part("model"), **found.part("ema")}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        check_regular(path)
        check_unpacked(str(path), stored_size(path), os.stat(path).st_size)  # a sparse file may claim any size
        with safe_open(path, framework="pt") as file:
            is_of_run = {"format", "values"} <= (file.metadata() or {}).keys()
            weights = {} if is_of_run else {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({reason(error)}): use another file") from error
    return _of_run(checkpoint.load(path)) if is_of_run else weights


def _read_torch(path: Path) -> dict[str, Tensor]:
    with as_input_error(lambda words: f"{path} cannot be read as a state dict ({words}): save one by torch.save"):
        check_regular(path)
        if not zipfile.is_zipfile(path):
            raise InputError(
                f"{path} is not in the format of torch.save since torch 1.6: read it where you trust it, and save its "
                "state dict again"
            )
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        check_unpacked(str(path), stored_size(path), unpacked)
        content = torch.load(path, map_location="cpu", weights_only=True)
    return _state_dict(content, path)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Return a state dict, or the one that is a value of a dictionary."""
    if _is_state_dict(content):
        return dict(content)
    entries = content if isinstance(content, dict) else {}
    held = {name: value for name, value in entries.items() if _is_state_dict(value)}
    if len(held) == 1:
        return dict(next(iter(held.values())))
    if held:
        raise InputError(f"{path} holds several state dicts ({', '.join(map(str, held))}): save the one to use")
    raise InputError(f"{path} holds no state dict, names with tensors: save model.state_dict()")


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )
