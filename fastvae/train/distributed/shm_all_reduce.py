"""All-reduce among the ranks of one machine, in shared memory.

In a step of leaky at batch 1024, two ranks spend 4 % of the time in it, and 22 % in gloo's over loopback
(benchmarks/processes.py): a barrier there takes 220 us, here 30.
"""

import os
import tempfile
from pathlib import Path

import torch

from fastvae import backends
from fastvae.ops.internal.arrive_and_wait import arrive_and_wait

from .ranks import LostRankError
from .world import World

_MEMORY = Path("/dev/shm")
_LINE = 64  # bytes of a cache line
_PATIENCE = 0.2  # seconds between checks whether the other ranks are alive


class ShmAllReduce:
    """A vector of each rank, ``own`` (size,), and their sum, ``total`` (size,), in memory that all ranks share.

    Each rank sums a slice of all vectors, always in the order of the ranks: all get the same bits. The file behind the
    memory is unlinked before anything is in it, so that it disappears with the processes, however they end.
    """

    def __init__(self, size: int, dtype: torch.dtype, sent: torch.dtype, world: World, file: Path) -> None:
        whole = torch.from_file(str(file), shared=True, size=_bytes(size, dtype, sent, world), dtype=torch.uint8)
        lines = world.size * _LINE
        self._arrivals = whole[:lines].view(torch.int64).view(world.size, -1)
        self.total = whole[lines : lines + size * dtype.itemsize].view(dtype)
        vectors = whole[len(whole) - world.size * size * sent.itemsize :].view(sent)
        self._vectors = vectors.view(world.size, size).unbind()
        self.own = self._vectors[world.rank]
        first, last = (rank * size // world.size for rank in (world.rank, world.rank + 1))
        self._part = slice(first, last)
        self._world = world
        self._meetings = 0
        self._processes = world.all_gather_object(os.getpid())

    @classmethod
    def where_possible(cls, size: int, dtype: torch.dtype, sent: torch.dtype, world: World) -> "ShmAllReduce | None":
        """Return one of zeros if all ranks run on the CPU of one machine with enough memory, else None. Collective.

        The vectors have the type ``sent``, their sum ``dtype``.
        """
        if world.size == 1 or not world.is_one_machine or world.device.type != "cpu":
            return None
        name = world.broadcast_object(_reserve(_bytes(size, dtype, sent, world)) if world.is_rank_0 else None)
        if name is None:
            return None
        try:
            shared = cls(size, dtype, sent, world, Path(name))
            world.barrier()
        finally:
            Path(name).unlink(missing_ok=True)
        return shared

    def all_reduce(self) -> None:
        """Make ``total`` the sum of all vectors. It is valid until the next call, and must not be modified."""
        self._meet()
        first, *others = (vector[self._part] for vector in self._vectors)
        total = self.total[self._part]
        total.copy_(first)
        for vector in others:
            total += vector
        self._meet()

    def _meet(self) -> None:
        """Wait until all ranks are here. Raises LostRankError if one of them has died."""
        if not backends.has_native():
            self._world.barrier()
            return
        self._meetings += 1
        while not arrive_and_wait(self._arrivals, self._world.rank, self._meetings, _PATIENCE):
            for rank, process in enumerate(self._processes):
                if not _lives(process):
                    raise LostRankError(f"process {rank} of {self._world.size} has ended: this one stops too")


def _lives(process: int) -> bool:
    """Return whether a process runs; a dead one keeps its id as a zombie until its parent collects it."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _bytes(size: int, dtype: torch.dtype, sent: torch.dtype, world: World) -> int:
    """Return the bytes of the barrier's cache lines, of the sum (rounded up to a cache line) and of the vectors."""
    total = -(-size * dtype.itemsize // _LINE) * _LINE
    return world.size * _LINE + total + world.size * size * sent.itemsize


def _reserve(size: int) -> str | None:
    """Make a file of zeros in memory; return None if that is impossible or too small (64 MB in many containers)."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="fastvae-", dir=_MEMORY)
    except OSError:
        return None
    try:
        os.posix_fallocate(descriptor, 0, size)  # writing to memory that is not reserved would kill the process
    except OSError:
        os.unlink(name)
        return None
    finally:
        os.close(descriptor)
    return name
