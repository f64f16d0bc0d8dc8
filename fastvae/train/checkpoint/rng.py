"""torch's own generators, which a model with dropout draws from: the run's seed begins them, its checkpoints have them.

Each process draws its own, for its own rows. The noise of the latents is none of theirs (:class:`fastvae.Noise`).
"""

import hashlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from fastvae.train.distributed.world import World

from .checkpoint import Checkpoint

_PREFIX = "generator"


def preserve_rng_state(device: torch.device) -> AbstractContextManager[None]:
    """Around what may draw, and must leave the draws that come after it as they would have been."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def begin(seed: int, step: int, world: World) -> None:
    """Seed what this process draws after a step: other numbers after each, and in each process."""
    digest = hashlib.blake2b(f"{seed} {step} {world.rank}".encode(), digest_size=8).digest()
    key = int.from_bytes(digest, "little")
    torch.default_generator.manual_seed(key)
    if world.device.type == "cuda":
        torch.cuda.manual_seed(key)  # of this process' device: open_world has set it


def gather(world: World) -> dict[str, Tensor]:
    """The states of all processes, (processes, bytes) uint8 each, as a checkpoint names them. All have to ask."""
    states = {}
    for name, own in _own(world).items():
        rows = torch.zeros(world.size, len(own), dtype=torch.uint8)
        rows[world.rank] = own
        if world.size > 1:
            rows = rows.to(world.device)
            world.all_reduce(rows)
        states[f"{_PREFIX}.{name}"] = rows
    return states


def go_on(found: Checkpoint, seed: int, step: int, world: World) -> None:
    """Draw on as a checkpoint's run would have.

    Where its states are of another number of processes or another device, or an older version kept none: what the seed
    and the step decide.
    """
    begin(seed, step, world)
    saved = found.part(_PREFIX)
    for name, own in _own(world).items():
        rows = saved.get(name)
        if rows is None or rows.shape != (world.size, len(own)):
            continue
        state = rows[world.rank].clone()  # of a view, torch 2.14 reads past its end
        if name == "cuda":
            torch.cuda.set_rng_state(state, world.device)
        else:
            torch.set_rng_state(state)


def _own(world: World) -> dict[str, Tensor]:
    """The states of this process, (bytes,) uint8 on the host; none of them waits for the device."""
    states = {"cpu": torch.get_rng_state()}
    if world.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(world.device)
    return states
