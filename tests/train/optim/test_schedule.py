"""Schedules: their shapes as properties, and that the engine follows them, also from the middle."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastvae.data import ResidentLoader, load
from fastvae.models import build
from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.config.schedules import plan
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.optim.schedule import Plan, Schedule, cosine, cyclical, iwae, ramp, warmed_up
from fastvae.train.optim.step_counter import StepCounter

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
EPOCH = 12  # steps
lengths = st.integers(1, 300)


def planned(**settings):
    return plan(resolve(TrainConfig(**settings)), EPOCH)


@given(lengths)
def test_warm_up_rises_from_above_0_to_1(n):
    values = warmed_up(torch.arange(n + 5), n)
    assert values[0] > 0
    assert values[n - 1 :].tolist() == [1] * 6
    assert (values[:n].diff() > 0).all()


@given(lengths)
def test_cosine_falls_from_1_to_0_and_is_odd_about_its_middle(n):
    values = cosine(torch.arange(n + 1, dtype=torch.float64), n)
    assert values[0] == 1
    assert values[-1] == 0
    assert (values.diff() < 0).all()
    torch.testing.assert_close(values + values.flip(0), torch.ones_like(values))


@given(lengths)
def test_ramp_rises_from_0_to_1_in_a_line(n):
    values = ramp(torch.arange(n + 5, dtype=torch.float64), n)
    assert values[0] == 0
    assert values[n:].tolist() == [1] * 5
    torch.testing.assert_close(values[: n + 1].diff(), torch.full((n,), 1 / n, dtype=torch.float64))


@given(lengths)
def test_cycles_repeat_and_are_half_ramp_half_1(n):
    values = cyclical(torch.arange(3 * n), n)
    assert torch.equal(values[:n], values[n : 2 * n])
    assert torch.equal(values[:n], values[2 * n :])
    assert values[0] == 0
    half = (n + 1) // 2
    assert (values[half:n] == 1).all()
    assert (values[:half].diff() > 0).all()


def test_the_iwae_stages_last_1_3_9_epochs_and_so_on():
    _, counts = iwae(torch.arange(3280)).unique(return_counts=True)
    assert sorted(counts.tolist()) == [3**i for i in range(8)]
    assert iwae(torch.tensor([5000])).item() == pytest.approx(0.1)


def test_the_iwae_rates_are_fp64():
    rates = iwae(torch.tensor([0, 1, 4, 13]))
    assert rates.tolist() == pytest.approx([10 ** (-i / 7) for i in range(4)], rel=1e-15)


def test_constant_is_no_table():
    assert planned() == Plan()


@pytest.mark.parametrize(
    ("settings", "schedule", "steps"),
    [
        ({}, "warmup", 1000),
        ({"beta_steps": 7}, "warmup", 7),
        ({"beta_schedule": "constant"}, "constant", None),
        ({"beta_schedule": "cyclical", "beta_steps": 8}, "cyclical", 8),
        ({"objective": "capacity", "capacity": 5.0, "beta_steps": 7}, "warmup", 7),
        ({"objective": "iwae"}, "constant", None),
    ],
    ids=str,
)
def test_the_preset_warms_beta_up_unless_told_otherwise(settings, schedule, steps):
    config = resolve(TrainConfig(preset="conv64", **settings))
    assert (config.beta_schedule, config.beta_steps) == (schedule, steps)
    assert resolve(config) == config
    assert resolve(TrainConfig()).beta_schedule == "constant"


def test_tables_are_of_the_whole_run_and_join_warm_up_and_schedule():
    rates, betas, _ = planned(
        epochs=5, lr=0.5, schedule="cosine", warmup_steps=10, beta=4.0, beta_schedule="warmup", beta_steps=20
    )
    assert len(rates) == len(betas) == 5 * EPOCH
    assert rates.argmax() in (9, 10)
    assert rates.max() == 0.5
    assert rates[-1] < 0.001
    assert betas[0] == 0
    assert betas[20:].tolist() == [4.0] * 40


def test_step_decays_at_the_start_of_an_epoch():
    rates, *_ = planned(epochs=6, lr=1.0, schedule="step", decay=0.5, decay_epochs=2)
    assert rates.tolist() == [1.0] * 24 + [0.5] * 24 + [0.25] * 24


class Seen(NamedTuple):
    rates: list[float]
    betas: list[float]


def follow(engine, loader, first, last):
    seen = Seen([], [])
    for step in range(first, last):
        engine.train_step(loader.fetch(step % len(loader)))
        seen.rates.append(float(engine.optimizer.param_groups[0]["lr"]))
        seen.betas.append(engine._scalars.beta.item())
    return seen


def test_the_engine_follows_and_goes_on_in_the_middle():
    config = resolve(
        TrainConfig(
            precision="fp32", execution="traced", epochs=3, batch_size=128, lr=0.01, schedule="cosine", warmup_steps=5,
            beta_schedule="cyclical", beta_steps=8, latent_dim=2,
        )
    )  # fmt: skip
    loader = ResidentLoader(load("digits").train, batch_size=128, seed=0)
    table = plan(config, len(loader))

    def engine():
        torch.manual_seed(0)
        return Engine(build(config.recipe, (1, 8, 8), 2), config, CPU, table)

    whole, first, second = engine(), engine(), engine()
    seen = follow(whole, loader, 0, 36)
    assert seen.rates == table.rates.tolist()
    assert seen.betas == table.betas.float().tolist()
    follow(first, loader, 0, 17)
    state = first.state()
    second.load_state(Checkpoint({name: tensor.clone() for name, tensor in state.tensors.items()}, state.values))
    rest = follow(second, loader, 17, 36)
    assert (rest.rates, rest.betas) == (seen.rates[17:], seen.betas[17:])
    for own, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(own, other)
    follow(second, loader, 36, 38)  # a trial may take steps beyond the end
    assert second.optimizer.param_groups[0]["lr"] == table.rates[-1]


def test_on_a_gpu_nothing_waits_for_it(monkeypatch):
    # What a GPU's optimiser does, with a CPU's tensors: the rate is a tensor that is filled in place.
    monkeypatch.setattr("fastvae.train.optim.schedule.takes_device_rate", lambda optimizer: True)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    counter = StepCounter(0)
    beta = torch.zeros(1)
    plan = Plan(torch.tensor([0.1, 0.2]), torch.tensor([1.0, 2.0]))
    schedule = Schedule(plan, optimizer, beta, torch.zeros(1), counter)
    schedule.set()
    rate = optimizer.param_groups[0]["lr"]
    assert (rate.item(), beta.item()) == (pytest.approx(0.1), 1)
    counter.rewind(5)
    schedule.set()
    assert (rate.item(), beta.item()) == (pytest.approx(0.2), 2)
    assert optimizer.param_groups[0]["lr"] is rate
