"""Global generators: torch's seeded for each process; all of them, Python's and numpy's too, saved and restored."""

import random

import numpy as np
import pytest
import torch

from fastvae.train.checkpoint import rng
from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.train.distributed.world import World

CPU = torch.device("cpu")
ALONE = World(0, 0, 1, CPU)


def after(seed, step, world):
    rng.seed_rng(seed, step, world)
    return torch.rand(4).tolist()


def test_each_seed_step_and_process_draws_its_own_and_again_the_same():
    with rng.preserve_rng_state(CPU):
        places = [(0, 0, 0), (1, 0, 0), (2**40, 0, 0), (0, 1, 0), (0, 0, 1)]
        drawn = [after(seed, step, World(rank, rank, 2, CPU)) for seed, step, rank in places]
        assert len({tuple(numbers) for numbers in drawn}) == len(places)
        assert drawn[0] == after(0, 0, ALONE)


def test_going_on_draws_what_would_have_come():
    with rng.preserve_rng_state(CPU):
        after(7, 0, ALONE)
        found = Checkpoint(rng.gather_rng_states(ALONE), {})
        expected = torch.rand(4)
        rng.restore_rng(found.tensors, 7, 5, ALONE)
        assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("saved", [{}, {"generator.cpu": torch.zeros(2, 5056, dtype=torch.uint8)}], ids=["old", "two"])
def test_of_an_older_version_or_another_number_of_processes_the_seed_and_the_step_decide(saved):
    with rng.preserve_rng_state(CPU):
        expected = after(7, 5, ALONE)
        rng.restore_rng(saved, 7, 5, ALONE)
        assert torch.rand(4).tolist() == expected


def of_python_and_numpy():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.standard_normal()


@pytest.mark.parametrize("kept", [0, 1], ids=["even", "odd"])  # each second normal variate is kept in the state
def test_pythons_and_numpys_generators_go_on_too(kept):
    with rng.preserve_rng_state(CPU):
        for _ in range(kept):
            of_python_and_numpy()
        found = rng.gather_rng_states(ALONE)
        expected = of_python_and_numpy()
        of_python_and_numpy()
        rng.restore_rng(found, 7, 5, ALONE)
        assert of_python_and_numpy() == expected


def test_generators_that_nothing_drew_from_are_not_saved():
    untouched = rng.caller_states()
    assert set(rng.gather_rng_states(ALONE, untouched)) == {"generator.cpu"}
    random.random()
    found = rng.gather_rng_states(ALONE, untouched)
    assert set(found) == {"generator.cpu", "generator.python"}
    assert set(rng.caller_states(found)) == {"numpy"}


@pytest.mark.parametrize("name", ["python", "numpy"])
def test_bytes_that_are_no_state_leave_the_generator_alone(name):
    found = rng.gather_rng_states(ALONE)
    found[f"generator.{name}"].fill_(255)
    random.seed(1), np.random.seed(1)
    with rng.preserve_rng_state(CPU):
        rng.restore_rng({f"generator.{name}": found[f"generator.{name}"]}, 7, 5, ALONE)
    now = of_python_and_numpy()
    random.seed(1), np.random.seed(1)
    assert of_python_and_numpy() == now


WORK = """
import torch
from fastvae.train.checkpoint import rng
from fastvae.train.checkpoint.checkpoint import Checkpoint

def work(world):
    rng.seed_rng(3, 0, world)
    torch.rand(world.rank)
    found = Checkpoint(rng.gather_rng_states(world), {})
    assert found.tensors["generator.cpu"].shape[0] == world.size
    expected = torch.rand(4)
    rng.restore_rng(found.tensors, 3, 9, world)
    assert torch.equal(torch.rand(4), expected)
    assert world.all_gather_object(expected.tolist()).count(expected.tolist()) == 1
"""


@pytest.mark.slow
@pytest.mark.xdist_group("spellings")
def test_each_process_goes_on_with_its_own(in_processes):
    in_processes(WORK, 2)
