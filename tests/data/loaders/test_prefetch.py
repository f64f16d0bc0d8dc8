"""The thread that fetches ahead: in turn, not too far, and gone when it is not needed."""

import threading
import time

import pytest
import torch

from fastvae.data.loaders.batch import Batch
from fastvae.data.loaders.prefetch import Prefetcher

CPU = torch.device("cpu")


def batch(step):
    return Batch(torch.full((1, 1, 1, 1), step), 0, 1)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "fastvae-prefetch"]


def test_batches_come_in_turn_and_the_thread_ends():
    assert [int(item.images) for item in Prefetcher(batch, range(3, 9), CPU)] == [3, 4, 5, 6, 7, 8]
    assert threads() == []


def test_it_is_ahead_by_a_few_and_no_more():
    fetched = []

    def fetch(step):
        fetched.append(step)
        return batch(step)

    ahead = Prefetcher(fetch, range(100), CPU)
    taken = iter(ahead)
    next(taken)
    time.sleep(0.2)
    assert 2 <= len(fetched) <= 4
    ahead.close()
    assert threads() == []


def test_what_is_wrong_is_raised_at_its_step():
    def fetch(step):
        if step == 2:
            raise ValueError("two")
        return batch(step)

    taken = iter(Prefetcher(fetch, range(5), CPU))
    assert [int(next(taken).images), int(next(taken).images)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(taken)
    assert threads() == []


def test_waiting_is_counted():
    def fetch(step):
        time.sleep(0.05)
        return batch(step)

    slow = Prefetcher(fetch, range(4), CPU)
    list(slow)
    assert slow.waited > 0.1
    quick = Prefetcher(batch, range(4), CPU)
    for _ in quick:
        time.sleep(0.03)
    assert quick.waited < 0.05


def test_one_that_was_closed_is_at_its_end():
    ahead = Prefetcher(batch, range(100), CPU)
    taken = iter(ahead)
    next(taken)
    ahead.close()
    assert list(taken) == []


def test_closing_waits_for_what_is_being_fetched():
    def fetch(step):
        time.sleep(0.2)
        return batch(step)

    ahead = Prefetcher(fetch, range(100), CPU)
    started = time.perf_counter()
    ahead.close()
    assert time.perf_counter() - started < 1
    assert threads() == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_arrive_on_the_gpu_as_they_are():
    device = torch.device("cuda")
    host = [torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last) for _ in range(9)]
    streams = []

    def fetch(step):
        streams.append(torch.cuda.current_stream(device))
        images = host[step] if step % 2 else host[step].to(device)
        return Batch(images[: 0 if step == 8 else 4], 0, 4)

    for step, item in enumerate(Prefetcher(fetch, range(9), device)):
        assert item.images.is_cuda
        assert torch.equal(item.images.cpu(), host[step][: len(item.images)])
        assert step == 8 or item.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.cuda.current_stream(device) not in streams
