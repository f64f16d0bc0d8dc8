"""The statistics of a race, on a clock that the contenders move: medians, quartiles, start-up."""

import pytest
import torch

from fastvae.bench import race as racing
from fastvae.bench.contenders.workload import Contender, Entry, Workload
from fastvae.bench.race import Result, race
from fastvae.data import Dataset
from fastvae.models import PRESETS

IMAGES = torch.zeros(250, 1, 8, 8, dtype=torch.uint8)
STEPS = 3  # in an epoch


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(racing, "page_in_constants", lambda: None)
    return now


class Timed(Contender):
    """A contender whose construction, first step and steps in each lap take given seconds on the clock."""

    precision = "bf16"
    note = "chosen"

    def __init__(self, clock, made, first, laps):
        self._clock, self._first, self._laps, self._begun = clock, first, laps, False
        clock[0] += made

    def epoch(self, number):
        for _ in range(STEPS):
            self._clock[0] += self._laps[number]
            if not self._begun:
                self._clock[0] += self._first
                self._begun = True
            yield


def run(clock, steps=None, laps=(4.0, 1.0, 3.0, 2.0), seeds=1, made=(5.0, 50.0), first=7.0):
    workload = Workload("classic", PRESETS["classic"], Dataset("made", IMAGES, IMAGES), 100, torch.device("cpu"), steps)
    entries = [
        Entry(
            name,
            "torch",
            lambda workload, seed, factor=factor: Timed(
                clock, factor * made[seed], factor * first, [factor * lap for lap in laps]
            ),
        )
        for name, factor in (("a", 1), ("b", 2))
    ]
    return race(workload, entries, laps=len(laps) - 1, seeds=seeds)


def test_laps_are_timed_and_the_warm_up_is_not_among_them(clock):
    one, two = run(clock)
    assert one.seconds == [1, 3, 2]
    assert two.seconds == [2, 6, 4]
    assert (one.median, two.median) == (2, 4)
    assert (one.precision, one.note) == ("bf16", "chosen")


def test_start_up_is_making_and_warming_up_beyond_an_epoch(clock):
    one, two = run(clock)
    # 5 s to make, then a first epoch of 7 + 3 * 4 s, less the 3 * 2 s that an epoch takes.
    assert one.start_up == 5 + 7 + 3 * 4 - 3 * 2
    assert two.start_up == 2 * one.start_up


def test_start_up_is_that_of_the_first_seed(clock):
    one, _ = run(clock, seeds=2)
    assert one.start_up == 5 + 7 + 3 * 4 - 3 * 2
    assert one.seconds == [1, 3, 2] * 2


def test_start_up_of_slices_leaves_out_a_slice(clock):
    one, _ = run(clock, steps=2)
    assert one.seconds == [1, 3, 2]
    # The warm-up lap has the untimed step and 2 more; less the 2 * 2 s of a slice.
    assert one.start_up == 5 + 7 + 3 * 4 - 2 * 2


def test_start_up_is_never_negative(clock):
    one, _ = run(clock, laps=(1.0, 9.0), made=(0.0,), first=0.0)
    assert one.start_up == 0


def test_median_and_quartiles():
    made = Result("a", "torch", seconds=[5.0, 1.0, 2.0, 10.0])
    assert made.median == 3.5
    assert made.quartiles == (1.75, 6.25)  # inclusive: interpolated between the sorted values
    assert Result("a", "torch", seconds=[3.0]).quartiles == (3.0, 3.0)
    assert Result("a", "torch", test_losses=[1.0, 2.0, 6.0]).test_loss == 3.0


def test_disagreement_is_relative_and_names_both():
    losses = {"first": [50.0], "near": [51.0], "far": [51.1], "below": [48.9]}
    results = [Result(name, "torch", test_losses=values) for name, values in losses.items()]
    assert racing.disagreements(results) == [
        "far ends at 51.10 nats, first at 50.00",
        "below ends at 48.90 nats, first at 50.00",
    ]


class Queueing(Contender):
    """A contender as on a GPU: steps only queue work, and waiting takes the time of all that is queued."""

    def __init__(self, clock, first):
        self._clock, self._queued, self._first = clock, 0.0, first

    def epoch(self, number):
        for step in range(STEPS):
            self._queued += 1.0 if step else self._first
            yield

    def wait(self):
        self._clock[0] += self._queued
        self._queued = 0.0


def test_what_was_queued_before_a_lap_is_not_of_the_lap(clock):
    contender = Queueing(clock, first=50.0)
    assert contender.lap(1, 2, contender.wait) == 1.0
    contender = Queueing(clock, first=4.0)
    contender._queued = 100.0  # left by the contender before it
    assert contender.lap(1, None, contender.wait) == (4 + 1 + 1) / 3


def test_the_test_loss_does_not_depend_on_how_many_images_are_evaluated_at_once(monkeypatch):
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8)
    workload = Workload("classic", PRESETS["classic"], Dataset("made", images, images), 10, torch.device("cpu"))
    model = workload.model(0)
    whole = workload.test_loss(model)
    monkeypatch.setattr("fastvae.bench.contenders.workload._EVAL_BATCH", 7)
    assert workload.test_loss(model) == pytest.approx(whole, rel=1e-6)
