"""Training on a GPU through the public interfaces. The same tests run on the CPU, to show that they are right."""

import json
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

import fastvae
from fastvae import cli
from fastvae.data import load
from fastvae.parity import cli as parity
from fastvae.train import TrainConfig, Trainer
from fastvae.train.checkpoint import checkpoint

CPU, GPU = "cpu", pytest.param("cuda", marks=pytest.mark.gpu)
SLOW_CPU = pytest.param("cpu", marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Use an empty cache, without choices of an earlier autotuning."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Run ``fastvae train`` in this process, with an empty loss.png. Returns the run's folder."""
    monkeypatch.setattr("fastvae.train.run.write_curves", lambda metrics, path: path.touch() or path)

    def start(device, *flags, out="run"):
        folder = tmp_path / out
        assert cli.run(["train", "--device", device, "--out", str(folder), *flags]) == 0
        return folder

    return start


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "test"]


def tensors(folder):
    return checkpoint.newest(folder / "checkpoints")[1].tensors


@pytest.mark.parametrize("device", [CPU, GPU])
def test_two_epochs_learn(train, device, capsys):
    """Autotune on a GPU, which compiles. On a CPU that takes long, and test_autotune.py covers it."""
    folder = train(device, "--epochs", "2", *(["--no-autotune"] if device == "cpu" else []))
    first, second = losses(folder)
    assert second < first
    assert f"on {device}" in capsys.readouterr().out
    assert (folder / "samples.png").exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("device", [SLOW_CPU, GPU])
def test_a_resumed_run_is_the_longer_one_to_the_bit(train, device, precision):
    flags = ("--precision", precision, "--execution", "traced", "--no-autotune", "--ema", "0.9")
    whole = train(device, "--epochs", "2", *flags, out="whole")
    train(device, "--epochs", "2", "--max-steps", "17", *flags, out="parts")
    parts = train(device, "--epochs", "2", *flags, "--resume", out="parts")
    assert losses(whole)[-1] == losses(parts)[-1]
    ours, theirs = tensors(parts), tensors(whole)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("device", [SLOW_CPU, GPU])
def test_replayed_steps_are_those_launched_one_by_one(train, device):
    flags = ("--epochs", "2", "--precision", "fp32", "--execution", "traced", "--no-autotune")
    plain, replayed = (train(device, *flags, "--replay", replay, out=replay) for replay in ("no", "auto"))
    ours, theirs = tensors(replayed), tensors(plain)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("device", [SLOW_CPU, GPU])
def test_convolutions_learn(train, device):
    flags = ("--preset", "conv28", "--width", "8", "--batch-size", "64", "--epochs", "2", "--no-autotune")
    first, second = losses(train(device, *flags, "--execution", "traced"))
    assert second < first


class Transposed(nn.Module):
    """A layer whose gradient has other strides than its weight, which fused Adam on a GPU would refuse."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)

    def forward(self, x):
        return torch.einsum("bi,oi->bo", x, self.weight)


class Waiting(nn.Module):
    """A layer that reads a value on the host in each step, so that it cannot be captured in a graph."""

    def forward(self, x):
        return x / max(1.0, x.abs().max().item())


def own_model(*layers):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 2 * 8))
    decoder = nn.Sequential(nn.Linear(8, 64), nn.Unflatten(1, (1, 8, 8)))
    return fastvae.VAE(encoder, decoder, latent_shape=8)


def fit(model, device, folder, **settings):
    settings = {"epochs": 2, "batch_size": 64, "autotune": False, "execution": "eager", "lr": 3e-3} | settings
    config = TrainConfig(device=device, precision="fp32", out=str(folder), **settings)
    ends = []
    outcome = Trainer(model, load("digits"), config, callbacks=[ends.append]).fit()
    assert outcome.status == 0
    assert ends[1].test.loss < ends[0].test.loss


@pytest.mark.parametrize("execution", ["eager", "traced"])
@pytest.mark.parametrize("device", [CPU, GPU])
def test_a_model_of_ones_own_learns(device, execution, tmp_path):
    fit(own_model(Transposed(64, 64), nn.BatchNorm1d(64), nn.Tanh()), device, tmp_path / "run", execution=execution)


@pytest.mark.parametrize("device", [CPU, GPU])
def test_a_model_that_cannot_be_captured_learns_all_the_same(device, tmp_path, capsys):
    fit(own_model(Waiting()), device, tmp_path / "run")
    said = "steps are launched one by one, as they cannot be captured" in capsys.readouterr().out
    assert said == (device == "cuda")


@pytest.mark.parametrize("device", [SLOW_CPU, GPU])
def test_a_race_of_ten_steps(device, tmp_path):
    contenders = ["tutorial", "torch fp32, eager", "fastvae fp32, traced", "floor, fp32"]
    contenders += ["torch fp32, one graph"] if device == "cuda" else []
    file = tmp_path / "bench.json"
    flags = ["--preset", "classic", "--data", "digits", "--steps", "10", "--epochs", "2", "--json", str(file)]
    assert cli.run(["bench", "--device", device, *flags, "--contenders", *contenders]) in (0, 1)  # 1: losses disagree
    found = json.loads(file.read_text())["comparisons"][0]["contenders"]
    assert sorted(loop["name"] for loop in found) == sorted(contenders)
    assert all(loop["median_s"] > 0 for loop in found)


@pytest.mark.parametrize("device", [SLOW_CPU, GPU])
def test_parity(device, capsys):
    assert parity.main(["--device", device, "--steps", "20"]) == 0
    assert "all agree" in capsys.readouterr().out


@pytest.mark.parametrize("device", [SLOW_CPU, GPU])
def test_two_ranks_learn_as_one_does_and_end(device, tmp_path, train):
    """Two processes end. NCCL waits for graphs that hold its kernels, which could take forever."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("one GPU alone")
    flags = ["--epochs", "2", "--precision", "fp32", "--execution", "traced", "--no-autotune"]
    alone = train(device, *flags, out="alone")
    command = [sys.executable, "-m", "fastvae.train", "--nproc", "2", "--device", device, *flags]
    done = subprocess.run(
        [*command, "--out", tmp_path / "two"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"2 processes", done.stdout)
    assert losses(tmp_path / "two") == pytest.approx(losses(alone), rel=1e-4)
