"""The moving average of the weights: its formula, and that it is what a run is judged and looked at by."""

import re

import pytest
import torch

from fastvae.cli import run
from fastvae.data import ResidentLoader, load
from fastvae.evaluate.saved_run import SavedRun
from fastvae.models import build
from fastvae.train.checkpoint import checkpoint
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


def test_it_is_the_formula_and_leaves_the_training_alone():
    config = resolve(TrainConfig(precision="fp64", execution="traced", ema=0.9))
    torch.manual_seed(0)
    engine = Engine(build(config.recipe, (1, 8, 8)), config, CPU)
    expected = [parameter.detach().clone() for parameter in engine.model.parameters()]
    loader = ResidentLoader(load("digits").train, batch_size=100, seed=0)
    for step in range(5):
        engine.train_step(loader.fetch(step))
        expected = [0.9 * a + 0.1 * b.detach() for a, b in zip(expected, engine.model.parameters(), strict=True)]
    for own, other in zip(engine.result.parameters(), expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)
    assert not torch.equal(next(engine.result.parameters()), next(engine.model.parameters()))


def test_buffers_are_shared_and_weights_are_not():
    model = build(TrainConfig().recipe, (1, 8, 8))
    model.register_buffer("counter", torch.zeros(1))
    config = resolve(TrainConfig(precision="fp32", execution="eager", ema=0.9))
    engine = Engine(model, config, CPU)
    assert engine.result.counter is engine.model.counter
    own = {parameter.data_ptr() for parameter in engine.model.parameters()}
    assert not own & {parameter.data_ptr() for parameter in engine.result.parameters()}


def test_a_run_is_judged_by_it_saved_with_it_and_goes_on(train, metrics, capsys):
    flags = ("--epochs", "2", "--ema", "0.99")
    plain, whole = train("--epochs", "2", out="plain")[1], train(*flags, out="whole")[1]
    lines, own = metrics(plain), metrics(whole)
    assert [line["loss"] for line in lines if line["split"] == "train"] == [
        line["loss"] for line in own if line["split"] == "train"
    ]
    assert own[-1]["loss"] > lines[-1]["loss"]  # 24 steps: the average is still far behind

    parts = train("--epochs", "1", "--ema", "0.99", out="parts")[1]
    assert train(*flags, "--resume", out="parts")[0] == 0
    first, second = (checkpoint.newest(folder / "checkpoints")[1].tensors for folder in (whole, parts))
    assert any(name.startswith("ema.") for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)
    shown = SavedRun.open(whole, torch.device("cpu")).model.state_dict()
    assert all(torch.equal(shown[name], first[f"ema.{name}"]) for name in shown)

    capsys.readouterr()
    assert run(["evaluate", str(whole), "--device", "cpu"]) == 0
    elbo = float(re.search(r"test ELBO (-[\d.]+)", capsys.readouterr().out).group(1))
    assert -elbo == pytest.approx(own[-1]["loss"], abs=6e-4)
