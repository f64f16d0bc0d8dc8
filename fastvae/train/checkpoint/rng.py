"""torch's generators, which dropout draws from: seeded by the run, saved in its checkpoints.

Each rank draws its own numbers for its own rows. The noise of the latents does not come from them
(:class:`fastvae.Noise`).
"""

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager

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


def gather_rng_states(world: World) -> dict[str, Tensor]:
    """Return the states of all ranks, (ranks, bytes) uint8 each, by their names in a checkpoint. Collective."""
    states = {}
    for name, own in _rng_states(world).items():
        rows = torch.zeros(world.size, len(own), dtype=torch.uint8)
        rows[world.rank] = own
        if world.size > 1:
            rows = rows.to(world.device)
            world.all_reduce(rows)
        states[f"{_PREFIX}.{name}"] = rows
    return states


def restore_rng(saved: Mapping[str, Tensor], seed: int, step: int, world: World) -> None:
    """Restore this rank's generators from the tensors of a checkpoint.

    They are seeded from (seed, step, rank) instead if the states are of another number of ranks or another device, or
    if an older version saved none.
    """
    seed_rng(seed, step, world)
    for name, own in _rng_states(world).items():
        rows = saved.get(f"{_PREFIX}.{name}")
        if rows is None or rows.shape != (world.size, len(own)):
            continue
        state = rows[world.rank].clone()  # torch 2.14 reads past the end of a view
        if name == "cuda":
            torch.cuda.set_rng_state(state, world.device)
        else:
            torch.set_rng_state(state)


def _rng_states(world: World) -> dict[str, Tensor]:
    """Return the states of this rank, (bytes,) uint8 on the host. Never synchronizes with the device."""
    states = {"cpu": torch.get_rng_state()}
    if world.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(world.device)
    return states
