"""The statistics of the autotune trial on made-up times, and the settings that call for another trial."""

import re

import pytest
import torch
import torch.distributed as dist
from torch import nn

from fastvae.data import ResidentLoader, load
from fastvae.models import VAE, build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.distributed.world import World
from fastvae.train.measure import autotune

CPU = torch.device("cpu")
ALONE = World(rank=0, local_rank=0, size=1, device=CPU)
EAGER, TRACED = ("fp32", "eager"), ("fp32", "traced")
SHORT, LONG = 10, 10**6  # steps of runs that are too short to compile for, and long enough


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune, "_seconds_of_step", lambda *_: 9.0)  # no run is too short for a trial
    monkeypatch.setattr(autotune.OtherLoad, "cores", lambda *_: 0.0)  # other tests run meanwhile


class Own(nn.Sequential):
    """An encoder that fastvae does not know."""


def choose(steps=SHORT, loader_options=None, grey=0, is_own=False, **settings):
    config = resolve(TrainConfig(device="cpu", **{"precision": "fp32", "batch_size": 8} | settings))
    images = torch.full((24, 1, 8, 8), grey, dtype=torch.uint8)
    model = build(config.recipe, (1, 8, 8), config.latent_dim)
    if is_own:
        model.encoder = Own(model.encoder)
    loader = ResidentLoader(images, batch_size=config.batch_size, seed=0, **loader_options or {})
    return autotune.choose(config, model, loader, steps, ALONE)


@pytest.fixture
def races(monkeypatch):
    """Replace the timing by made-up seconds; return the list to fill, one dict a race, and the candidates asked for."""
    given = []
    asked = []

    def made_up(candidates, *_):
        asked.append(list(candidates))
        return {candidate: given[min(len(asked), len(given)) - 1][candidate[1]] for candidate in candidates}

    monkeypatch.setattr(autotune, "_time", made_up)
    return given, asked


def test_compiled_steps_are_rescaled_by_what_both_races_timed(races):
    given, asked = races
    # In the second race the machine is half as fast: compiled takes 10 % less time than traced, not 80 % more.
    given += [{"eager": 3e-3, "traced": 2e-3}, {"traced": 4e-3, "compiled": 3.6e-3}]
    choice = choose(LONG)
    assert asked == [[EAGER, TRACED], [TRACED, ("fp32", "compiled")]]
    assert choice.execution == "compiled"
    assert choice.milliseconds == {"fp32 eager": 3.0, "fp32 traced": 2.0, "fp32 compiled": 1.8}
    assert str(choice).endswith("(by trial: fp32 eager 3.00 ms, fp32 traced 2.00 ms, fp32 compiled 1.80 ms)")


def test_compiled_steps_that_are_slower_are_left(races):
    given, _ = races
    given += [{"eager": 3e-3, "traced": 2e-3}, {"traced": 1e-3, "compiled": 1.5e-3}]
    choice = choose(LONG)
    assert choice.execution == "traced"
    assert choice.milliseconds["fp32 compiled"] == 3.0


def test_compiling_is_tried_from_a_minute_on(races):
    given, asked = races
    given += [{"eager": 3.0, "traced": 2.0, "compiled": 2.0}]
    choose(30)  # 60 seconds
    choose(31, batch_size=4)
    assert [len(candidates) for candidates in asked] == [2, 2, 2]
    assert asked[2] == [TRACED, ("fp32", "compiled")]


class Turn:
    """A turn whose calls take the given seconds on the clock, one after another."""

    def __init__(self, clock, seconds, steps):
        self._clock, self._seconds, self.steps = clock, iter(seconds), steps
        self.released = False

    def __call__(self):
        self._clock[0] += next(self._seconds, 9.0)

    def release(self):
        self.released = True


@pytest.fixture
def clock(monkeypatch):
    now = [50.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def time(clock, seconds, steps=5, world=ALONE):
    """Return the measured seconds of a step, for turns that take the given seconds after one to warm up."""
    turns = {name: Turn(clock, [40.0, *values], steps) for name, values in seconds.items()}
    times = autotune._time(list(seconds), lambda *candidate: turns[candidate], world)
    assert all(turn.released for turn in turns.values())
    return times


def test_the_fastest_turn_counts_and_the_warm_up_does_not(clock):
    quick = [0.3, 0.1, 0.2, 0.4, 0.5, 0.6, 0.7]
    slow = [0.25, 0.25, 0.2, 0.25, 0.25, 0.25, 0.25]
    times = time(clock, {EAGER: quick, TRACED: slow})
    assert times == {EAGER: pytest.approx(0.1 / 5), TRACED: pytest.approx(0.2 / 5)}


def test_turns_end_after_some_seconds(clock):
    # Each takes 4 s a turn, so 8 s have passed after one turn of each.
    assert time(clock, {EAGER: [4.0, 0.1], TRACED: [4.0, 0.1]}) == {
        EAGER: pytest.approx(0.8),
        TRACED: pytest.approx(0.8),
    }


def test_processes_agree_on_the_mean_of_their_times(clock, monkeypatch):
    """Eager is faster in this process; the other one took 7 and 1 s a step."""

    def with_another(tensor):
        tensor += torch.tensor([7.0, 1.0]) if tensor.is_floating_point() else 0

    monkeypatch.setattr(dist, "all_reduce", with_another)
    times = time(clock, {EAGER: [5.0], TRACED: [10.0]}, steps=5, world=World(0, 0, 2, CPU))
    assert times == {EAGER: pytest.approx((1 + 7) / 2), TRACED: pytest.approx((2 + 1) / 2)}


def test_what_is_the_same_is_not_tried_again(races):
    given, asked = races
    given += [{"eager": 1e-3, "traced": 1e-3}]
    assert choose().source == "by trial"
    for settings in ({}, {"seed": 5}, {"lr": 0.5}, {"beta": 2.0}, {"epochs": 3}, {"checkpoint_every": 3}):
        assert choose(**settings).source == "from an earlier trial", settings
    assert choose(SHORT + 1).source == "from an earlier trial"  # within a factor of two
    assert len(asked) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"backend": "reference"},
        {"batch_size": 6},
        {"precision": "bf16"},
        {"execution": "eager", "precision": "auto"},
        {"optimizer": "rmsprop"},
        {"optimizer_options": {"weight_decay": 0.1}},
        {"schedule": "cosine"},
        {"beta_schedule": "warmup", "beta_steps": 3},
        {"objective": "iwae"},
        {"objective": "iwae", "samples": 2},
        {"accumulate": 2},
        {"clip_norm": 1.0},
        {"ema": 0.9},
        {"binarize": True},
        {"replay": "no"},
        {"latent_dim": 3},
        {"preset": "deep"},
        {"steps": 1000},
    ],
    ids=str,
)
def test_what_changes_a_steps_time_is_tried_anew(races, settings, monkeypatch):
    monkeypatch.setattr(autotune, "has_fast_bf16", lambda device: True)
    given, _ = races
    given += [{"eager": 1e-3, "traced": 1e-3}]
    choose()
    if settings.get("samples"):
        choose(objective="iwae")
    assert choose(**settings).source == "by trial"
    assert choose(**settings).source == "from an earlier trial"


def test_other_images_are_tried_anew(races):
    given, _ = races
    given += [{"eager": 1e-3, "traced": 1e-3}]
    choose()
    assert choose(grey=1).source == "by trial"


@pytest.mark.parametrize("fastest", ["fp32", "bf16"])
def test_bf16_is_proven_again_for_a_model_whose_code_may_have_changed(fastest, monkeypatch):
    """Two models of one name may compute different things, and the bound of the loss held for one of them."""
    monkeypatch.setattr(autotune, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(
        autotune, "_time", lambda all_of, *_: {each: 1e-3 if each[0] == fastest else 2e-3 for each in all_of}
    )
    for is_own in (False, True):
        assert choose(precision="auto", is_own=is_own).source == "by trial"
    again = {is_own: choose(precision="auto", is_own=is_own) for is_own in (False, True)}
    assert again[False].source == "from an earlier trial"
    assert again[True].source == ("by trial" if fastest == "bf16" else "from an earlier trial")
    assert {choice.precision for choice in again.values()} == {fastest}


def test_other_threads_are_tried_anew(races, monkeypatch):
    given, _ = races
    given += [{"eager": 1e-3, "traced": 1e-3}]
    choose()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert choose().source == "by trial"


class Cancelling(torch.nn.Module):
    """Adds and subtracts a number beside which 16 bits keep nothing of a logit."""

    def forward(self, x):
        return (x + 1000) - 1000


def race(model, monkeypatch, **settings):
    """Let bf16, at half the time, race fp32 on digits, with the losses of real steps."""
    monkeypatch.setattr(autotune, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(autotune, "_TURNS", 2)
    whole = autotune._time
    seconds = {"fp32": 2e-3, "bf16": 1e-3}
    monkeypatch.setattr(autotune, "_time", lambda *all: {name: seconds[name[0]] for name in whole(*all)})
    config = resolve(TrainConfig(device="cpu", execution="eager", batch_size=32, **settings))
    loader = ResidentLoader(load("digits").train, batch_size=32, seed=0)
    return autotune.choose(config, model or build(config.recipe, (1, 8, 8), config.latent_dim), loader, SHORT, ALONE)


@pytest.mark.parametrize("preset", ["leaky", "classic"])
def test_bf16_is_chosen_where_its_loss_is_fp32s(preset, monkeypatch):
    choice = race(None, monkeypatch, preset=preset)
    assert choice.precision == "bf16"
    assert choice.left_out == ""


def test_bf16_is_left_out_where_its_loss_is_worse(monkeypatch):
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8))
    decoder = torch.nn.Sequential(torch.nn.Linear(4, 64), Cancelling(), torch.nn.Unflatten(1, (1, 8, 8)))
    choice = race(VAE(encoder, decoder), monkeypatch, lr=0.01)
    assert choice.precision == "fp32"
    assert set(choice.milliseconds) == {"fp32 eager"}
    assert re.search(r"; bf16 left out, as its loss in the trial is [\d.]+, and fp32's [\d.]+\)$", str(choice))


@pytest.mark.parametrize(("seconds", "tried"), [(0.39, False), (0.41, True)])
def test_a_run_of_some_seconds_has_no_trial(seconds, tried, races, monkeypatch):
    given, asked = races
    given += [{"eager": 3.0, "traced": 2.0}]
    monkeypatch.setattr(autotune, "_seconds_of_step", lambda candidate, *_: {EAGER: seconds}[candidate])
    choice = choose(SHORT)
    assert bool(asked) == tried
    if not tried:
        assert str(choice) == "fp32, eager (without a trial: the run takes about 4 s)"
        monkeypatch.setattr(autotune, "_seconds_of_step", lambda *_: 9.0)  # on a busier day
        assert str(choose(SHORT)) == "fp32, eager (as in an earlier run)"
        assert not asked
        given += [{"traced": 2.0, "compiled": 3.0}]
        choose(LONG)
        assert asked


@pytest.mark.parametrize(("busy", "kept"), [(None, True), (0.2, True), (1.0, False)])
def test_the_choice_of_a_busy_machine_is_not_kept(busy, kept, races, monkeypatch):
    given, _ = races
    given += [{"eager": 1e-3, "traced": 2e-3}, {"eager": 2e-3, "traced": 1e-3}]
    monkeypatch.setattr(autotune.OtherLoad, "cores", lambda *_: busy)
    assert choose().execution == "eager"
    monkeypatch.setattr(autotune.OtherLoad, "cores", lambda *_: 0.0)
    assert choose().execution == ("eager" if kept else "traced")
    assert choose().source == "from an earlier trial"
