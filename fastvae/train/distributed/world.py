"""The ranks of one run: which of them this process is, its device, and their collectives."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]  # it does not say that it exports it

from fastvae.backends import CAPABILITIES, capability, has_native
from fastvae.utils.errors import InputError, LocalError
from fastvae.utils.files import parse_json, reason
from fastvae.utils.machine import cores

from .ranks import ALONE, LostRankError, Ranks, read_ranks
from .rendezvous import join

_LOST = ("by peer", "Broken pipe", "gloo", "NCCL")  # in torch's errors where a rank's connection breaks


@dataclass(frozen=True)
class World:
    """One process of `size`: `rank` counts over all machines, `local_rank` on this one."""

    rank: int
    local_rank: int
    size: int
    device: torch.device
    is_one_machine: bool = False

    @property
    def is_rank_0(self) -> bool:
        """True on rank 0, the process that prints and writes files."""
        return self.rank == 0

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Sum `tensor` over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Copy rank 0's values of `tensors` to every rank, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def any(self, flag: bool) -> bool:
        """Return, on every rank, whether `flag` is true on any. Synchronizes with the device."""
        if self.size == 1:
            return flag
        votes = torch.tensor(int(flag), dtype=torch.int32, device=self.device)
        dist.all_reduce(votes)
        return bool(votes.item())

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's value, which JSON can hold, on every rank. Nothing that is received is unpickled."""
        return parse_json(self._texts(json.dumps(value) if self.is_rank_0 else "")[0])

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the values of all ranks, which JSON can hold, in the order of the ranks, on every rank."""
        return [parse_json(text) for text in self._texts(json.dumps(value))]

    def _texts(self, own: str) -> list[str]:
        if self.size == 1:
            return [own]
        content = own.encode()
        lengths = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        lengths[self.rank] = len(content)
        dist.all_reduce(lengths)
        whole = lengths.tolist()
        # Every rank fills in its own bytes, and the sum has all of them.
        rows = torch.zeros(sum(whole), dtype=torch.uint8, device=self.device)
        begin = sum(whole[: self.rank])
        rows[begin : begin + len(content)] = torch.tensor(list(content), dtype=torch.uint8).to(self.device)
        dist.all_reduce(rows)
        return [bytes(part.tolist()).decode() for part in rows.cpu().split(whole)]

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """Return a context in which an InputError on one rank is raised on every rank.

        The code inside must not call collectives.
        """
        refusal: InputError | None = None
        try:
            yield
        except InputError as error:
            refusal = error
        for message in self.all_gather_object(None if refusal is None else str(refusal)):
            if message is not None:
                raise InputError(message) from refusal

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def open_world(device: str) -> Iterator[World]:
    """Join the processes that torchrun (or `--nproc`) started, on `device`: "auto", "cpu" or "cuda".

    A single process needs no environment and gets no process group. Several use NCCL on CUDA and gloo on the CPU, where
    each also gets its share of the cores, unless the user set OMP_NUM_THREADS. The group is destroyed on the way out,
    also on an error, without waiting for other ranks.

    Raises:
        InputError: the device is unknown or absent, has fewer GPUs than processes, or the environment is malformed.
    """
    ranks = read_ranks() or ALONE
    place = resolve_device(device, ranks)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    world = World(ranks.rank, ranks.local_rank, ranks.size, place, ranks.is_one_machine)
    if place.type == "cpu":
        _set_threads(ranks)
    if world.size == 1:
        yield world
        return

    store, rank, size = join(ranks.rank, ranks.size, one_machine=ranks.is_one_machine)
    if place.type == "cuda":
        _check_own_gpus(store, rank, size, place)
    try:
        own = place if place.type == "cuda" else None
        dist.init_process_group("nccl" if own else "gloo", store=store, rank=rank, world_size=size, device_id=own)
    except RuntimeError as error:
        raise LocalError(
            f"process {rank} of {size} cannot talk to the others ({reason(error)}): see that GLOO_SOCKET_IFNAME and "
            "NCCL_SOCKET_IFNAME, if you set them, name an interface of this machine"
        ) from error
    try:
        yield world
    except BaseException as error:
        # NCCL's orderly shutdown waits for collectives which the other processes may never join.
        if place.type == "cuda" and dist.group.WORLD is not None:
            dist.group.WORLD.abort()
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST):
            raise LostRankError(f"process {rank} of {size} stops, as another has ended ({reason(error)})") from error
        raise
    finally:
        dist.destroy_process_group()


def _check_own_gpus(store: Store, rank: int, size: int, device: torch.device) -> None:
    """Raise InputError, on every rank, if two ranks share a GPU: NCCL's own message would not help a user."""
    store.set(f"GPU of {rank}", str(torch.cuda.get_device_properties(device).uuid))
    gpus = [store.get(f"GPU of {other}").decode() for other in range(size)]
    own = len(set(gpus))
    if own < size:
        raise InputError(f"{size} processes need as many GPUs, but have {own}: use --nproc {own}, or --device cpu")


def resolve_device(device: str, ranks: Ranks = ALONE) -> torch.device:
    """Return the device that "auto", "cpu" or "cuda" means for this process.

    Raises:
        InputError: the device is unknown or absent, or there are fewer GPUs than processes, or FASTVAE_CPU_CAPABILITY
            asks for instructions that this CPU does not have.
    """
    found = capability() if has_native() else None
    if found is not None and found not in CAPABILITIES:
        raise InputError(f"{found}: unset it, or set it to what `fastvae doctor` shows without it")
    if device not in {"auto", "cpu", "cuda"}:
        raise InputError(f"--device {device!r} is not one of auto, cpu, cuda")
    has_cuda = torch.cuda.is_available()
    if device == "cpu" or (device == "auto" and not has_cuda):
        return torch.device("cpu")
    if not has_cuda:
        raise InputError("--device cuda, but torch sees no CUDA GPU: use --device cpu, or see `fastvae doctor`")
    gpus = torch.cuda.device_count()
    if gpus == 1:  # a cluster may show each process its own GPU alone; _check_own_gpus finds out
        return torch.device("cuda", 0)
    if gpus < ranks.local_size:
        raise InputError(
            f"{ranks.local_size} processes need as many GPUs, torch sees {gpus}: use --nproc {gpus}, or --device cpu"
        )
    return torch.device("cuda", ranks.local_rank)


def _set_threads(ranks: Ranks) -> None:
    """Give this process its share of the cores.

    A single process keeps the threads that its script asked for, up to the number of cores.
    """
    if user_set_threads():
        return
    share = max(1, cores() // ranks.local_size)
    if ranks.size > 1 or (share < torch.get_num_threads() and "MKL_NUM_THREADS" not in os.environ):
        torch.set_num_threads(share)


def user_set_threads() -> bool:
    """Return whether the user set OMP_NUM_THREADS, which torchrun also does."""
    # torchrun gives its workers OMP_NUM_THREADS=1 if the user set none. They cannot see who set it, but /proc has the
    # environment that torchrun itself, their parent, was started with.
    value = os.environ.get("OMP_NUM_THREADS")
    if value != "1" or "TORCHELASTIC_RUN_ID" not in os.environ:
        return value is not None
    try:
        parents = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(variable.startswith(b"OMP_NUM_THREADS=") for variable in parents)
