"""Global generators: torch's, which dropout draws from, and Python's and numpy's, which a user's own model may use.

A run seeds torch's; the others begin as the caller left them, and are saved once something has drawn from them, so that
the checkpoints of equal runs are equal. Each rank draws its own numbers for its own rows. The noise of the latents does
not come from any of them (:class:`fastvae.Noise`).
"""

import hashlib
import random
import struct
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress

import numpy as np
import torch
from torch import Tensor

from fastvae.train.distributed.world import World

_PREFIX = "generator"


def preserve_rng_state(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that restores torch's generators, as torch.random.fork_rng does, on the CPU and ``device``."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def seed_rng(seed: int, step: int, world: World) -> None:
    """Seed this rank's generators from (seed, step, rank)."""
    digest = hashlib.blake2b(f"{seed} {step} {world.rank}".encode(), digest_size=8).digest()
    key = int.from_bytes(digest, "little")
    torch.default_generator.manual_seed(key)
    if world.device.type == "cuda":
        torch.cuda.manual_seed(key)  # on this rank's device, which open_world has made current


def gather_rng_states(world: World, untouched: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the states of all ranks, (ranks, bytes) uint8 each, by their names in a checkpoint. Collective.

    Those that are as in ``untouched``, which :func:`caller_states` gave, are left out.
    """
    states = {}
    for name, own in _rng_states(world).items():
        before = (untouched or {}).get(name)
        if before is not None and not world.any(not torch.equal(before, own)):
            continue
        rows = torch.zeros(world.size, len(own), dtype=torch.uint8)
        rows[world.rank] = own
        if world.size > 1:
            rows = rows.to(world.device)
            world.all_reduce(rows)
        states[f"{_PREFIX}.{name}"] = rows
    return states


def caller_states(saved: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the states of Python's and numpy's generators, (bytes,) uint8, but for those that a checkpoint has."""
    return {name: own for name, own in _mersenne_twisters().items() if f"{_PREFIX}.{name}" not in (saved or {})}


def restore_rng(saved: Mapping[str, Tensor], seed: int, step: int, world: World) -> None:
    """Restore this rank's generators from the tensors of a checkpoint.

    torch's are seeded from (seed, step, rank) instead, and the others left alone, if the states are of another number
    of ranks or another device, or if an older version saved none.
    """
    seed_rng(seed, step, world)
    for name, own in _rng_states(world).items():
        rows = saved.get(f"{_PREFIX}.{name}")
        if rows is None or rows.shape != (world.size, len(own)):
            continue
        state = rows[world.rank].clone()  # torch 2.14 reads past the end of a view
        if name == "cuda":
            torch.cuda.set_rng_state(state, world.device)
        elif name == "cpu":
            torch.set_rng_state(state)
        else:
            with suppress(ValueError):  # not a state of this generator: it stays as it is
                _restore_mersenne_twister(name, state.numpy().tobytes())


def _rng_states(world: World) -> dict[str, Tensor]:
    """Return the states of this rank, (bytes,) uint8 on the host. Never synchronizes with the device."""
    states = {"cpu": torch.get_rng_state(), **_mersenne_twisters()}
    if world.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(world.device)
    return states


_STATE = struct.Struct("<624IH?d")  # the words, the place in them, and a normal variate kept for the next call, if any


def _mersenne_twisters() -> dict[str, Tensor]:
    """Return the states of Python's and of numpy's global generators, (bytes,) uint8."""
    _, (*words, place), kept = random.getstate()
    packed = {"python": _STATE.pack(*words, place, kept is not None, kept or 0.0)}
    state = np.random.get_state(legacy=False)
    if isinstance(state, dict) and state["bit_generator"] == "MT19937":  # unless the caller has replaced it
        inner = state["state"]
        packed["numpy"] = _STATE.pack(*inner["key"], inner["pos"], bool(state["has_gauss"]), state["gauss"])
    return {name: torch.frombuffer(bytearray(each), dtype=torch.uint8) for name, each in packed.items()}


def _restore_mersenne_twister(name: str, packed: bytes) -> None:
    """Restore Python's or numpy's generator. Raises ValueError for bytes that are not its state."""
    *words, place, has_kept, kept = _STATE.unpack(packed)
    if place > len(words):
        raise ValueError(f"a generator's place is {place}, of {len(words)}")
    if name == "python":
        random.setstate((3, (*words, place), kept if has_kept else None))
    else:
        np.random.set_state(("MT19937", np.array(words, dtype=np.uint32), place, int(has_kept), kept))
