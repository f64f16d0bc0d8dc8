"""Sums over the processes of one machine, in memory that they share.

Of a step of leaky at batch 1024, two processes spend 14 % so, and 20 % over loopback (benchmarks/processes.py).
"""

import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

from .world import World

_MEMORY = Path("/dev/shm")


class SharedSum:
    """A vector of each process, ``own`` (size,), and how they become their sum.

    Each process adds up its part of all vectors, always in the order of the ranks: all get the same bits. The file
    behind the memory loses its name before anything is in it, so that it goes with the processes, however they end.
    """

    def __init__(self, size: int, dtype: torch.dtype, world: World, file: Path) -> None:
        count = world.size + 1
        whole = torch.from_file(str(file), shared=True, size=count * size, dtype=dtype)
        *self._vectors, self._total = whole.view(count, size).unbind()
        self.own = self._vectors[world.rank]
        first, last = (rank * size // world.size for rank in (world.rank, world.rank + 1))
        self._part = slice(first, last)
        self._world = world

    @classmethod
    def where_possible(cls, size: int, dtype: torch.dtype, world: World) -> "SharedSum | None":
        """One of zeros, if all processes are on the CPU of one machine that has the memory. All have to ask."""
        if world.size == 1 or not world.is_one_machine or world.device.type != "cpu":
            return None
        name = [_reserve((world.size + 1) * size * dtype.itemsize) if world.is_main else None]
        dist.broadcast_object_list(name, 0)
        if name[0] is None:
            return None
        try:
            shared = cls(size, dtype, world, Path(name[0]))
            world.barrier()
        finally:
            Path(name[0]).unlink(missing_ok=True)
        return shared

    def sum(self) -> None:
        """Make ``own`` the sum of all, in all processes. What it was is lost."""
        self._world.barrier()
        first, *others = (vector[self._part] for vector in self._vectors)
        total = self._total[self._part]
        total.copy_(first)
        for vector in others:
            total += vector
        # From here on nobody reads another's; nobody writes the total again before all have come to the next sum.
        self._world.barrier()
        self.own.copy_(self._total)


def _reserve(size: int) -> str | None:
    """A file of zeros in memory, or None where there is no such place, or too little (64 MB in many containers)."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="fastvae-", dir=_MEMORY)
    except OSError:
        return None
    try:
        os.posix_fallocate(descriptor, 0, size)  # a write to what was not reserved would kill the process
    except OSError:
        os.unlink(name)
        return None
    finally:
        os.close(descriptor)
    return name
