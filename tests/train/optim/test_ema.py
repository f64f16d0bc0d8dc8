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
from fastvae.train.optim.ema import EMA

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


@pytest.mark.parametrize("ema", [0.0, 0.25, 0.9])
def test_it_is_the_formula_and_leaves_the_training_alone(ema):
    config = resolve(TrainConfig(precision="fp64", execution="traced", ema=ema))
    torch.manual_seed(0)
    engine = Engine(build(config.recipe, (1, 8, 8)), config, CPU)
    expected = [parameter.detach().clone() for parameter in engine.model.parameters()]
    loader = ResidentLoader(load("digits").train, batch_size=100, seed=0)
    for step in range(5):
        engine.train_step(loader.fetch(step))
        decay = min(ema, (2 + step) / (11 + step))  # 2/11, 3/12, 4/13, 5/14, 6/15: 0.25 is reached at the second
        expected = [
            decay * a + (1 - decay) * b.detach() for a, b in zip(expected, engine.model.parameters(), strict=True)
        ]
    last = [parameter.detach().clone() for parameter in engine.model.parameters()]
    with engine.using_result() as model:
        for own, other in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)
        assert torch.equal(next(model.parameters()), last[0]) == (ema == 0)
    assert all(torch.equal(own, other) for own, other in zip(engine.model.parameters(), last, strict=True))


def test_hardly_anything_of_the_first_weights_is_left_after_an_epoch_of_mnist():
    """A constant decay of 0.999 would leave 0.63 of them."""
    model = torch.nn.Linear(1, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.fill_(1)
        step = torch.zeros(1, dtype=torch.int64)
        ema = EMA(model, 0.999, step)
        model.weight.fill_(0)
        for _ in range(469):
            step += 1
            ema.update()
        assert 0 < ema.averages["weight"].item() < 1e-17
        step.fill_(8991)  # 8992 / 9001 is 0.999
        ema.averages["weight"].fill_(1)
        ema.update()
    assert ema.averages["weight"].item() == pytest.approx(0.999, rel=1e-6)


def test_the_averages_are_applied_to_the_model_itself():
    """So that it needs no copy, and has the buffers that its forward pass replaces."""
    model = torch.nn.Linear(2, 2)
    model.register_buffer("counter", torch.zeros(1))
    ema = EMA(model, 0.9, torch.zeros(1, dtype=torch.int64))
    addresses = [weight.data_ptr() for weight in model.parameters()]
    average = ema.averages["weight"].clone()
    with torch.no_grad():
        model.weight.add_(1)
    model.counter = model.counter + 1
    with ema.applied():
        assert torch.equal(model.weight, average)
        assert model.counter == 1
    assert torch.equal(model.weight, average + 1)
    assert [weight.data_ptr() for weight in model.parameters()] == addresses  # which a CUDA graph has


def test_a_run_is_judged_by_it_saved_with_it_and_goes_on(train, metrics, capsys):
    flags = ("--epochs", "2", "--ema", "0.99")
    plain, whole = train("--epochs", "2", out="plain")[1], train(*flags, out="whole")[1]
    lines, own = metrics(plain), metrics(whole)
    assert [line["loss"] for line in lines if line["split"] == "train"] == [
        line["loss"] for line in own if line["split"] == "train"
    ]
    assert own[-1]["loss"] != lines[-1]["loss"]

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
