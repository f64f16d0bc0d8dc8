"""torch's generators: begun by the seed for each process, and saved and put back for all of them."""

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
