"""The figures that `fastvae evaluate` prints: their order and their units."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastvae.cli import run
from fastvae.data import ResidentLoader
from fastvae.evaluate import cli
from fastvae.evaluate.saved_run import Evaluation
from fastvae.nn import Bernoulli, Categorical, Gaussian
from fastvae.train.report.metrics import Metrics

LATENTS = 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "trained"
    flags = ["--epochs", "2", "--device", "cpu", "--latent-dim", str(LATENTS), "--precision", "fp32", "--no-autotune"]
    assert run(["train", *flags, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def pretended(monkeypatch):
    """A made-up run with 40 test images of 2 x 2 pixels."""
    images = torch.zeros(40, 1, 2, 2, dtype=torch.uint8)
    opened = SimpleNamespace(
        path="run",
        model=SimpleNamespace(likelihood=Categorical(), levels=1),
        settings={"preset": "classic", "seed": 3},
        shape=(1, 2, 2),
        epoch=7,
        steps=0,
        announced_test_loader=lambda data_dir: ResidentLoader(images, batch_size=10, seed=0, shuffle=False),
    )
    monkeypatch.setattr(cli.SavedRun, "open", lambda *_: opened)
    return opened


def test_dimensions_come_largest_first(trained, capsys):
    assert run(["evaluate", str(trained)]) == 0
    rows = re.findall(r"│ (\d+) +│ ([\d.]+) +│ (?:yes|no)", capsys.readouterr().out)
    shares = [float(kl) for _, kl in rows]
    assert len(set(shares)) > 1
    assert shares == sorted(shares, reverse=True)
    assert sorted(int(dimension) for dimension, _ in rows) == list(range(LATENTS))


def test_means_and_draws_of_the_same_latents(trained, tmp_path, capsys):
    assert run(["sample", str(trained), "--count", "4"]) == 0
    assert run(["sample", str(trained), "--count", "4", "--draw"]) == 0
    assert run(["sample", str(trained), "--count", "4", "--draw", "--out", str(tmp_path / "again.png")]) == 0
    means, draws, again = (Path(line) for line in capsys.readouterr().out.split())
    assert (means.name, draws.name, again.name) == ("samples.png", "draws.png", "again.png")
    assert draws.read_bytes() == again.read_bytes() != means.read_bytes()


def test_every_figure_of_an_evaluation(pretended, monkeypatch, capsys):
    kl = torch.tensor([0.25, 2.0, 0.0, 1.0])
    active = torch.tensor([False, True, False, True])
    monkeypatch.setattr(cli, "evaluate", lambda *_: Evaluation(Metrics(11.5, 8.25, 3.25), kl, active))
    assert run(["evaluate", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "run: preset classic, 7 epochs, on 40 test images",
        "test ELBO -11.500 nats = -(nll 8.250 + kl 3.250)",
        "-ELBO is an upper bound on -log p(x)",
        f"{11.5 / 4 / math.log(2):.3f} bits per dimension, by the ELBO",
        "active units 2 of 4",
    ]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if re.match(r"│ \d", line)]
    assert [row[:3] for row in rows] == [
        ["1", "2.000", "yes"],
        ["3", "1.000", "yes"],
        ["0", "0.250", "no"],
        ["2", "0.000", "no"],
    ]
    bars = [len(row[3]) for row in rows]
    assert bars == sorted(bars, reverse=True)
    assert (bars[1], bars[3]) == (15, 0)  # of 30 columns, for the largest
    assert bars[0] == 30


def test_grey_levels_that_are_no_code_have_no_bits(pretended, monkeypatch, capsys):
    pretended.model.likelihood.is_code_length = False
    result = Evaluation(Metrics(11.5, 8.25, 3.25), torch.ones(2), torch.ones(2, dtype=torch.bool))
    monkeypatch.setattr(cli, "evaluate", lambda *_: result)
    assert run(["evaluate", "run"]) == 0
    assert "bits" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("likelihood", "pixel", "bound"),
    [
        (Bernoulli(), 255, "an upper bound on -log p(x)"),
        (Bernoulli(), 7, "not a bound on -log p(x): the cross-entropy of grey pixels is not normalised"),
        (
            Gaussian(0.25),
            7,
            "an upper bound on -log p(x), with the 0.90 nats per image that nll leaves out: 12.40 nats",
        ),
    ],
    ids=["binary", "grey", "gaussian"],
)
def test_what_is_a_bound_is_told(pretended, monkeypatch, capsys, likelihood, pixel, bound):
    pretended.model.likelihood = likelihood
    images = torch.full((40, 1, 2, 2), pixel, dtype=torch.uint8)
    pretended.announced_test_loader = lambda data_dir: ResidentLoader(images, batch_size=10, seed=0, shuffle=False)
    result = Evaluation(Metrics(11.5, 8.25, 3.25), torch.ones(2), torch.ones(2, dtype=torch.bool))
    monkeypatch.setattr(cli, "evaluate", lambda *_: result)
    assert run(["evaluate", "run"]) == 0
    assert capsys.readouterr().out.splitlines()[2] == f"-ELBO is {bound}"
