"""Sums over the processes of one machine, in memory that they share.

Of a step of leaky at batch 1024, two processes spend 14 % so, and 20 % over loopback (benchmarks/processes.py).
"""

import os
import tempfile
from pathlib import Path

import torch

from .world import World

_MEMORY = Path("/dev/shm")


class SharedSum:
    """A vector of each process, ``own`` (size,), and their sum, ``total`` (size,), which all read where it lies.

    Each process adds up its part of all vectors, always in the order of the ranks: all get the same bits. The file
    behind the memory loses its name before anything is in it, so that it goes with the processes, however they end.
    """

    def __init__(self, size: int, dtype: torch.dtype, sent: torch.dtype, world: World, file: Path) -> None:
        whole = torch.from_file(str(file), shared=True, size=_bytes(size, dtype, sent, world), dtype=torch.uint8)
        self.total = whole[: size * dtype.itemsize].view(dtype)
        vectors = whole[len(whole) - world.size * size * sent.itemsize :].view(sent)
        self._vectors = vectors.view(world.size, size).unbind()
        self.own = self._vectors[world.rank]
        first, last = (rank * size // world.size for rank in (world.rank, world.rank + 1))
        self._part = slice(first, last)
        self._world = world

    @classmethod
    def where_possible(cls, size: int, dtype: torch.dtype, sent: torch.dtype, world: World) -> "SharedSum | None":
        """One of zeros, if all processes are on the CPU of one machine that has the memory. All have to ask.

        The vectors have the type ``sent``, their sum ``dtype``.
        """
        if world.size == 1 or not world.is_one_machine or world.device.type != "cpu":
            return None
        name = world.of_main(_reserve(_bytes(size, dtype, sent, world)) if world.is_main else None)
        if name is None:
            return None
        try:
            shared = cls(size, dtype, sent, world, Path(name))
            world.barrier()
        finally:
            Path(name).unlink(missing_ok=True)
        return shared

    def sum(self) -> None:
        """Make ``total`` the sum of all vectors. It stays until all have come to the next sum; nobody may change it."""
        self._world.barrier()
        first, *others = (vector[self._part] for vector in self._vectors)
        total = self.total[self._part]
        total.copy_(first)
        for vector in others:
            total += vector
        self._world.barrier()


def _bytes(size: int, dtype: torch.dtype, sent: torch.dtype, world: World) -> int:
    """Of the sum, rounded up to where vectors of any type may begin, and of the vectors."""
    return -(-size * dtype.itemsize // 64) * 64 + world.size * size * sent.itemsize


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
