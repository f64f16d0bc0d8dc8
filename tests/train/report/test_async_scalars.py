"""Numbers come back in order, each once, and as they were when they were asked for."""

import pytest
import torch

from fastvae.train.report.async_scalars import AsyncScalars, Window

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_each_arrives_once_and_in_order(device):
    readings = AsyncScalars()
    values = torch.zeros(2, device=device)
    for number in range(3):
        values.fill_(number)
        readings.request(values, Window(number, 10))
    values.fill_(9)
    arrived = [(host.tolist(), window) for host, window in readings.ready(wait=True)]
    assert arrived == [([number, number], Window(number, 10)) for number in range(3)]
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
    readings._queue.append((torch.ones(1), late, Window(1, 10)))
    readings.request(torch.zeros(1), Window(2, 10))
    assert list(readings.ready()) == []
    late.done = True
    assert [window.step for _, window in readings.ready()] == [1, 2]


def test_some_of_what_was_asked_for_last_may_be_left():
    readings = AsyncScalars()
    for number in range(3):
        readings.request(torch.ones(1), Window(number, 10))
    assert [window.step for _, window in readings.ready(wait=True, but=1)] == [0, 1]
    readings.request(torch.ones(1), Window(3, 10))
    assert [window.step for _, window in readings.ready(wait=True, but=1)] == [2]
    assert [window.step for _, window in readings.ready()] == [3]
