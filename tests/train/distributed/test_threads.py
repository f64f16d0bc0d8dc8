"""The threads of a run, beside made-up loads of other programs."""

import os

import pytest
import torch

from fastvae.train.distributed.threads import fitting
from fastvae.train.distributed.world import World

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


class Load:
    """A load that has been seen, or None for one that has not been for long enough."""

    def __init__(self, *cores):
        self.looks = list(cores)

    def cores(self, seconds):
        return self.looks.pop(0)


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """A machine of four cores, whose torch has four threads; return the numbers of threads that it had."""
    numbers = [4]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(torch, "get_num_threads", lambda: numbers[-1])
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    return numbers


@pytest.mark.parametrize(
    ("others", "threads", "told"),
    [
        (None, 4, "4 threads"),
        (0.0, 4, "4 threads"),
        (0.4, 4, "4 threads"),
        (1.1, 3, "3 threads of 4, as other programs keep 1.1 cores busy"),
        (3.0, 1, "1 thread of 4, as other programs keep 3.0 cores busy"),
        (9.0, 1, "1 thread of 4, as other programs keep 9.0 cores busy"),
    ],
)
def test_a_run_takes_the_cores_that_are_free(others, threads, told, counted):
    with fitting(CPU, Load(others), adapts=True) as fitted:
        assert counted[-1] == threads
        assert str(fitted) == told
    assert counted[-1] == 4


def test_the_number_follows_the_load_and_the_caller_gets_all_threads_back(counted):
    with fitting(CPU, Load(2.0, None, 1.0, 0.0, 3.2), adapts=True) as fitted:
        for _ in range(4):
            fitted.fit()
    assert counted == [4, 2, 3, 4, 1, 4]


@pytest.mark.parametrize("why", ["settings", "user", "GPU", "one thread"])
def test_the_number_stays_where_it_is_fixed(why, counted, monkeypatch):
    if why == "user":
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
    if why == "one thread":
        counted.append(1)
    before = list(counted)
    world = World(rank=0, local_rank=0, size=1, device=torch.device("cuda" if why == "GPU" else "cpu"))
    with fitting(world, Load(3.0), adapts=why != "settings") as fitted:
        fitted.fit()
    assert counted == before
