"""The test loss of a run is what `fastvae evaluate` finds on its checkpoint, for every preset and precision."""

import json
import re
from pathlib import Path

import pytest
import torch

from fastvae.cli import run
from fastvae.data import ResidentLoader
from fastvae.evaluate.saved_run import SavedRun, evaluate
from fastvae.models import PRESETS, build
from fastvae.train.checkpoint.load_weights import load_weights
from fastvae.train.config import TrainConfig, resolve, settle
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp64"])
@pytest.mark.parametrize("preset", PRESETS)
def test_evaluation_finds_the_runs_test_loss(preset, precision):
    network = PRESETS[preset].network
    shape = (1, 8, 8) if network == "mlp" else (1, 16, 16) if PRESETS[preset].flat else (3, 16, 16)
    small = {} if network == "mlp" else {"width": 8, "latent_dim": 2}
    settings = settle(resolve(TrainConfig(preset=preset, device="cpu", batch_size=8, **small)), precision, "eager")
    images = torch.randint(0, 256, (24, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    engine = Engine(build(settings.recipe, shape, settings.latent_dim, settings.width), settings, CPU)
    for batch in ResidentLoader(images, batch_size=8, seed=0):
        engine.train_step(batch)
    loader = ResidentLoader(images, batch_size=10, seed=0, shuffle=False)
    trained = engine.evaluate(loader, epoch=1)
    model = build(settings.recipe, shape, settings.latent_dim, settings.width)
    load_weights(model, engine.state(), average=True)
    opened = SavedRun(Path("run"), model.float().eval(), {"seed": settings.seed}, shape, epoch=1)
    assert evaluate(opened, loader).terms == pytest.approx(trained, rel=1e-5)


@pytest.mark.parametrize("flags", [("bf16",), ("bf16", "--ema", "0.5"), ("fp64",)], ids=" ".join)
def test_the_commands_print_the_same(flags, tmp_path, capsys):
    folder = tmp_path / "run"
    flags = ["--precision", *flags, "--epochs", "1", "--execution", "eager", "--no-autotune", "--device", "cpu"]
    assert run(["train", *flags, "--out", str(folder)]) == 0
    test = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][-1]
    capsys.readouterr()
    assert run(["evaluate", str(folder), "--device", "cpu"]) == 0
    printed = re.search(r"test ELBO -([\d.]+) nats = -\(nll ([\d.]+) \+ kl ([\d.]+)\)", capsys.readouterr().out)
    assert test["split"] == "test"
    for term, value in zip(("loss", "nll", "kl"), printed.groups(), strict=True):
        assert float(value) == pytest.approx(test[term], abs=6e-4)
