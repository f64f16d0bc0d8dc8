"""The loader over torch's DataLoader, and what it reads."""

import contextlib
import gc
import logging
import multiprocessing
import threading
import time

import pytest
import torch
from pictures import numbered, numbers

from fastvae.data import TensorSource
from fastvae.data.loaders.reader_processes import killed_readers_told
from fastvae.data.loaders.torch_loader import TorchLoader
from fastvae.data.sources.decoded import DecodedSource
from fastvae.utils.errors import InputError


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "fastvae-prefetch"]


def test_a_loader_that_is_left_leaves_no_thread():
    loader = TorchLoader(TensorSource(torch.zeros(50, 1, 2, 2)), batch_size=5, seed=0)
    batches = iter(loader)
    next(batches)
    assert len(threads()) == 1
    batches.close()
    assert threads() == []
    assert len(list(loader)) == 9


def test_fetch_leaves_the_place():
    images = torch.arange(10).view(10, 1, 1, 1)
    loader = TorchLoader(TensorSource(images), batch_size=4, seed=0, shuffle=False)
    assert loader.fetch(2).images.flatten().tolist() == [8, 9]
    assert loader.state_dict() == {"epoch": 0, "step": 0}


def test_workers_are_counted_from_zero(refuses):
    with refuses("workers must be at least 0", "-1"):
        TorchLoader(TensorSource(torch.zeros(5, 1, 2, 2)), batch_size=5, seed=0, workers=-1)


def test_an_iteration_that_is_still_held_takes_nothing_from_the_next():
    loader = TorchLoader(TensorSource(torch.arange(40).view(40, 1, 1, 1)), batch_size=4, seed=0)
    held = iter(loader)
    next(held)
    loader.set_epoch(1)
    found = [batch.images.flatten().tolist() for batch in loader]
    assert threads() == []
    loader.set_epoch(1)
    assert found == [loader.fetch(step).images.flatten().tolist() for step in range(10)]
    assert list(held) == []


@pytest.mark.slow
def test_processes_take_nothing_over_tell_once_and_leave_torchs_noise_alone(caplog):
    made = numbered(30)
    made.contents[7] = made.contents[21] = b"no picture"
    pictures = DecodedSource(made, 8, on_bad="skip")
    loader = TorchLoader(pictures, batch_size=3, seed=0, workers=2)
    state = torch.get_rng_state()
    held = iter(loader)
    next(held)
    for epoch in (1, 2, 3):
        loader.set_epoch(epoch)
        found = [numbers(batch.images) for batch in loader]
        with caplog.at_level(logging.ERROR):
            assert found == [numbers(loader.fetch(step).images) for step in range(10)]
    assert torch.equal(torch.get_rng_state(), state)
    told = [record.getMessage().split(":")[1].strip() for record in caplog.records]
    assert sorted(told) == ["made/21", "made/7"]


@pytest.mark.slow
def test_a_process_that_is_killed_is_told_of_and_replaced(refuses):
    loader = TorchLoader(DecodedSource(numbered(40), 8), batch_size=2, seed=0, workers=2)
    batches = iter(loader)
    next(batches)
    for process in multiprocessing.active_children():
        process.kill()
    with refuses("one of the processes", "killed", "--workers"):
        list(batches)
    loader.set_epoch(1)
    assert [numbers(batch.images) for batch in loader] == [numbers(loader.fetch(step).images) for step in range(20)]


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, b"no picture"])
def test_processes_end_with_their_loader(content):
    made = numbered(9)
    made.contents[5] = content or made.contents[5]
    loader = TorchLoader(DecodedSource(made, 8), batch_size=3, seed=0, workers=2)
    with contextlib.suppress(InputError):
        list(loader)
    assert len(multiprocessing.active_children()) == 2
    gc.disable()  # nothing holds it in a circle
    try:
        started = time.perf_counter()
        del loader
        assert multiprocessing.active_children() == []
        assert time.perf_counter() - started < 4
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_process_that_is_killed_between_epochs_is_told_of(refuses):
    loader = TorchLoader(DecodedSource(numbered(6), 8), batch_size=2, seed=0, workers=2)
    assert len(list(loader)) == 3
    multiprocessing.active_children()[0].kill()
    loader.set_epoch(1)
    with refuses("one of the processes", "killed", "--workers"):
        list(loader)
    assert len(list(loader)) == 3


def test_a_process_that_is_killed_is_told_of_wherever_the_program_is(refuses):
    with refuses("one of the processes", "killed", "--workers"), killed_readers_told():
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")


def test_other_errors_are_not_of_a_killed_process():
    with pytest.raises(RuntimeError, match="another"), killed_readers_told():
        raise RuntimeError("another")


def test_a_batch_larger_than_memory_is_refused(monkeypatch, refuses):
    monkeypatch.setattr("fastvae.utils.machine.memory", lambda: 1 << 30)
    with refuses("a batch of 1,000 images", "GB of memory", "--batch-size"):
        TorchLoader(DecodedSource(numbered(400), 1000), batch_size=1000, seed=0)
