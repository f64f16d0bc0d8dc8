"""Gradients of processes on one machine are summed in memory that they share: the same bits in all, nothing left."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastvae import backends
from fastvae.train.distributed import shm_all_reduce
from fastvae.train.distributed.shm_all_reduce import ShmAllReduce
from fastvae.train.distributed.world import World

WORK = """
import torch
from fastvae.train.distributed.shm_all_reduce import ShmAllReduce

seeded = torch.Generator().manual_seed

def work(world):
    for size in (1, 2, 3, 1000, 65537):
        for sent in (torch.float64, torch.bfloat16):
            vectors = torch.randn(5, world.size, size, dtype=torch.float64, generator=seeded(size)).to(sent)
            shared = ShmAllReduce.where_possible(size, torch.float64, sent, world)
            assert shared.own.dtype == sent and not shared.own.any()
            for step in vectors:
                shared.own.copy_(step[world.rank])
                shared.all_reduce()
                expected = step[0].double()
                for other in step[1:]:
                    expected += other
                assert torch.equal(shared.total, expected), (world.rank, size)
                shared.own.mul_(world.rank)  # its own affair
"""


@pytest.mark.slow
@pytest.mark.xdist_group("spellings")
def test_three_processes_get_the_sum_in_the_order_of_the_ranks(in_processes):
    in_processes(WORK, 3)


@pytest.mark.skipif(not backends.has_native(), reason="the C++ extension is not built: run `make setup`")
def test_who_waits_for_one_that_is_gone_stops(tmp_path, monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    class Left(World):
        def all_gather_object(self, value):
            return [value, gone.pid]

    monkeypatch.setattr(shm_all_reduce, "_MEMORY", tmp_path)
    monkeypatch.setattr(shm_all_reduce, "_PATIENCE", 0.01)
    world = Left(0, 0, 2, torch.device("cpu"), is_one_machine=True)
    file = shm_all_reduce._reserve(shm_all_reduce._bytes(9, torch.float32, torch.bfloat16, world))
    vectors = ShmAllReduce(9, torch.float32, torch.bfloat16, world, Path(file))
    with pytest.raises(RuntimeError, match="process 1 of 2 has ended"):
        vectors.all_reduce()


def test_one_process_and_those_of_several_machines_share_nothing():
    cpu, cuda, fp32 = torch.device("cpu"), torch.device("cuda"), torch.float32
    for world in (World(0, 0, 1, cpu, True), World(0, 0, 2, cpu), World(0, 0, 2, cuda, True)):
        assert ShmAllReduce.where_possible(9, fp32, fp32, world) is None


def test_what_is_reserved_is_zeros(tmp_path, monkeypatch):
    monkeypatch.setattr(shm_all_reduce, "_MEMORY", tmp_path)
    file = Path(shm_all_reduce._reserve(5000))
    assert file.read_bytes() == bytes(5000)


@pytest.mark.parametrize("place", ["nowhere", "full"])
def test_without_such_memory_there_is_none(tmp_path, monkeypatch, place):
    monkeypatch.setattr(shm_all_reduce, "_MEMORY", tmp_path / "nowhere" if place == "nowhere" else tmp_path)
    if place == "full":

        def refuse(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shm_all_reduce.os, "posix_fallocate", refuse)
    assert shm_all_reduce._reserve(5000) is None
    assert list(tmp_path.iterdir()) == []
