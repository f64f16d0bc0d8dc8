"""Numbers come back in order, each once, and as they were when they were asked for."""

import pytest
import torch

from fastvae.train.report.async_scalars import AsyncScalars

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_each_arrives_once_and_in_order(device):
    readings = AsyncScalars()
    values = torch.zeros(2, device=device)
    for number in range(3):
        values.fill_(number)
        readings.ask(values, f"number {number}")
    values.fill_(9)
    arrived = [(host.tolist(), tag) for host, tag in readings.ready(wait=True)]
    assert arrived == [([number, number], f"number {number}") for number in range(3)]
    assert list(readings.ready(wait=True)) == []


def test_nothing_is_waited_for(monkeypatch):
    class Late:
        done = False

        def query(self):
            return self.done

        def synchronize(self):
            self.done = True

    readings = AsyncScalars()
    late = Late()
    readings._queue.append((torch.ones(1), late, "late"))
    readings.ask(torch.zeros(1), "after it")
    assert list(readings.ready()) == []
    late.done = True
    assert [tag for _, tag in readings.ready()] == ["late", "after it"]


def test_some_of_what_was_asked_for_last_may_be_left():
    readings = AsyncScalars()
    for number in range(3):
        readings.ask(torch.ones(1), number)
    assert [tag for _, tag in readings.ready(wait=True, but=1)] == [0, 1]
    readings.ask(torch.ones(1), 3)
    assert [tag for _, tag in readings.ready(wait=True, but=1)] == [2]
    assert [tag for _, tag in readings.ready()] == [3]
