"""The processes of a run: what the environment says of them, and which device each gets."""

import os
import subprocess
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from fastvae.train.distributed import world
from fastvae.train.distributed.ranks import Ranks, read_ranks
from fastvae.train.distributed.world import open_world
from fastvae.utils.errors import InputError

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"RANK": "abc"}, "RANK='abc'"),
        ({"RANK": "4"}, "RANK='4'.* 0 to 3"),
        ({"RANK": "-1"}, "RANK='-1'"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK=''"),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"}, "LOCAL_RANK='1'.* 0 to 0"),
        ({"LOCAL_WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE='5'.* 1 to 4"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
        ({"WORLD_SIZE": "4.0"}, "WORLD_SIZE='4.0'"),
        ({"RANK": None}, "no RANK"),
        ({"RANK": None, "LOCAL_RANK": None}, "WORLD_SIZE but no RANK"),
        ({"WORLD_SIZE": None}, "no WORLD_SIZE"),
        ({"MASTER_PORT": None}, "WORLD_SIZE=4 but no MASTER_PORT"),
    ],
)
def test_refuses_a_malformed_environment(
    changes: dict[str, str | None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (TORCHRUN | changes).items():
        if value is not None:
            monkeypatch.setenv(name, value)

    with pytest.raises(InputError, match=says) as caught, open_world("cpu"):
        pass
    assert "\n" not in str(caught.value)


def test_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_ranks() is None
    for name, value in (TORCHRUN | {"RANK": "3", "LOCAL_WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    assert read_ranks() == Ranks(rank=3, local_rank=1, size=4, local_size=2)


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()

    with open_world("auto") as here:
        values = torch.ones(2)
        here.all_reduce(values)
        here.barrier()

        assert (here.rank, here.local_rank, here.size, here.device) == (0, 0, 1, torch.device("cpu"))
        assert here.is_rank_0
        assert (values.tolist(), here.any(True), here.any(False)) == ([1.0, 1.0], True, False)
        assert not torch.distributed.is_initialized()
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("device", "gpus", "says"),
    [
        ("gpu", 8, "'gpu' is not one of auto, cpu, cuda"),
        ("cuda", 0, "no CUDA GPU"),
        ("cuda", 2, "4 processes .* 2"),
        ("auto", 2, "4 processes .* 2"),
    ],
)
def test_refuses_a_device(device: str, gpus: int, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(InputError, match=says), open_world(device):
        pass


@pytest.mark.parametrize(("device", "expected"), [("auto", "cuda:1"), ("cuda", "cuda:1"), ("cpu", "cpu")])
def test_device_of_the_local_rank(device: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)

    assert world.resolve_device(device, Ranks(1, 1, 4, 4)) == torch.device(expected)


def test_a_cluster_may_show_each_process_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Slurm's --gpus-per-task does: four processes of a machine, each of which sees one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert world.resolve_device("auto", Ranks(3, 3, 4, 4)) == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("gpus", "says"), [("abc", None), ("aba", "3 processes need as many GPUs, but have 2: use --nproc 2")]
)
def test_processes_may_not_share_a_gpu(gpus: str, says: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    current = iter(gpus)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=next(current)))
    store = torch.distributed.HashStore()
    for rank, gpu in enumerate(gpus):  # the others are there before
        store.set(f"GPU of {rank}", gpu)
    with pytest.raises(InputError, match=says) if says else nullcontext():
        world._check_own_gpus(store, 0, len(gpus), torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("own", "parents", "expected"),
    [
        ({}, {}, False),
        ({"OMP_NUM_THREADS": "3"}, {}, True),
        ({"OMP_NUM_THREADS": "1"}, {}, True),
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "x"}, {"OMP_NUM_THREADS": "1"}, True),
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "x"}, {"X": "OMP_NUM_THREADS=1"}, False),
    ],
)
def test_tells_torchruns_thread_count_from_the_users(
    own: dict[str, str], parents: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    parent = subprocess.Popen(["sleep", "30"], env=parents)
    try:
        monkeypatch.setattr(os, "getppid", lambda: parent.pid)
        assert world.user_set_threads() == expected
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.parametrize(
    ("before", "environment", "size", "expected"),
    [
        (64, {}, 1, 6),
        (4, {}, 1, 4),
        (64, {"MKL_NUM_THREADS": "64"}, 1, 64),
        (64, {"OMP_NUM_THREADS": "64"}, 1, 64),
        (64, {}, 3, 2),
        (1, {}, 3, 2),
        (64, {"OMP_NUM_THREADS": "64"}, 3, 64),
        (64, {}, 9, 1),
    ],
)
def test_threads_are_no_more_than_the_cores(before, environment, size, expected, monkeypatch):
    threads = [before]
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(world, "cores", lambda: 6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)

    world._set_threads(Ranks(0, 0, size, size))
    assert threads[-1] == expected


def test_processes_of_other_machines_take_none_of_its_cores(monkeypatch):
    threads = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(world, "cores", lambda: 6)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    world._set_threads(Ranks(0, 0, size=6, local_size=3))
    assert threads == [2]


WORK = """
import pytest, torch
from fastvae.utils.errors import InputError
from fastvae.train.checkpoint import checkpoint
from fastvae.train.checkpoint.checkpoint import Checkpoint

def work(world):
    assert world.broadcast_object({"rank": world.rank}) == {"rank": 0}
    with world.raise_together():
        pass
    with pytest.raises(InputError, match="^refused in 2$"), world.raise_together():
        if world.rank == 2:
            raise InputError("refused in 2")
    with pytest.raises(InputError, match="^refused in [01]$"), world.raise_together():
        if world.rank < 2:
            raise InputError(f"refused in {world.rank}")
    assert checkpoint.broadcast(None, world) is None
    found = Checkpoint({"a": torch.arange(3), "b": torch.ones(0, 2), "c": torch.tensor(2.5)}, {"step": 7})
    got = checkpoint.broadcast(found if world.is_rank_0 else None, world)
    assert got.values == found.values
    assert got.tensors.keys() == found.tensors.keys()
    assert all(torch.equal(got.tensors[name], tensor) for name, tensor in found.tensors.items())
"""


@pytest.mark.slow
@pytest.mark.xdist_group("spellings")
def test_three_processes_agree(in_processes):
    in_processes(WORK, 3)


def test_one_process_agrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_world("cpu") as here:
        assert here.broadcast_object("value") == "value"
        with here.raise_together():
            pass
        with pytest.raises(InputError, match="refused"), here.raise_together():
            raise InputError("refused")
