"""The clock of an epoch: pauses and what is left out do not count."""

import pytest

from fastvae.train.report import throughput
from fastvae.train.report.throughput import Throughput


def test_pauses_and_what_is_left_out_do_not_count(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    meter = Throughput(seconds=1.0, images=10)
    meter.resume()
    now[0] += 8
    meter.leave_out(5)
    assert meter.seconds == pytest.approx(4)
    meter.pause()
    now[0] += 50
    meter.images += 10
    assert meter.seconds == pytest.approx(4)
    assert meter.rate() == pytest.approx(5)
