"""The threads of a run, beside made-up loads of other programs."""

import os
import re

import pytest
import torch

from fastvae.train.distributed.threads import fitting
from fastvae.train.distributed.world import World
from fastvae.utils.terminal import Terminal

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
    with fitting(CPU, Load(others), Terminal(), adapts=True) as fitted:
        assert counted[-1] == threads
        assert str(fitted) == told
    assert counted[-1] == 4


def test_the_number_follows_the_load_and_the_caller_gets_all_threads_back(counted):
    with fitting(CPU, Load(2.0, None, 1.0, 0.0, 3.2), Terminal(), adapts=True) as fitted:
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
    with fitting(world, Load(3.0), Terminal(), adapts=why != "settings") as fitted:
        fitted.fit()
    assert counted == before


@pytest.mark.parametrize("variable", [None, "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
@pytest.mark.parametrize(("others", "threads"), [(0.4, None), (2.2, 2), (9.0, 1)])
def test_a_run_that_keeps_its_threads_says_what_may_be_faster(others, threads, variable, counted, monkeypatch, capsys):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "1")
    with fitting(CPU, Load(others), Terminal(), adapts=False) as fitted:
        fitted.fit()  # once is enough
    assert counted == [4]
    told = " ".join(capsys.readouterr().out.split())
    expected = f"other programs keep {others} cores busy: OMP_NUM_THREADS={threads} may be faster"
    assert (expected in told) == (threads is not None)
    assert bool(re.search("GOMP_SPINCOUNT=1000", told)) == (threads is not None and variable is None)


def test_a_run_with_processes_of_its_own_does_not_look(counted, capsys):
    with fitting(CPU, Load(), Terminal(), adapts=False, looks=False) as fitted:
        fitted.fit()
    assert capsys.readouterr().out == ""
