"""The figures that `fastvae evaluate` and `fastvae nll` print: their order, their units, their standard error."""

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
        named_files=lambda data_dir: None,
        test_loader=lambda data_dir: ResidentLoader(images, batch_size=10, seed=0, shuffle=False),
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


def test_the_standard_error_is_that_of_the_mean(pretended, monkeypatch, capsys):
    parts = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 10.0])]
    asked = []
    monkeypatch.setattr(cli, "estimate_nll", lambda model, *what: asked.append(what) or iter(parts))
    assert run(["nll", "run", "--samples", "1500", "--images", "4"]) == 0
    # The mean is 4 and the squared deviations sum to 50, so the variance is 50 / 3, over 4 images.
    line = f"test -log p(x) 4.000 nats, standard error {math.sqrt(50 / 3) / 2:.3f} over 4 images, 1,500 samples each, "
    assert re.fullmatch(re.escape(line) + r"[\d.]+ s\n", capsys.readouterr().out)
    ((images, samples, seed),) = asked
    assert (images.shape, samples, seed) == ((4, 1, 2, 2), 1500, 3)


@pytest.mark.parametrize(
    ("likelihood", "pixel", "bound", "value", "more"),
    [
        (Bernoulli(), 255, "an upper bound on -log p(x)", 2.5, ""),
        (
            Bernoulli(),
            7,
            "not a bound on -log p(x): the cross-entropy of grey pixels is not normalised",
            2.5,
            "; no log-likelihood: the cross-entropy of grey pixels is not normalised",
        ),
        (
            Gaussian(0.25),
            7,
            "an upper bound on -log p(x), with the 0.90 nats per image that nll leaves out: 12.40 nats",
            2.5 + 2 * math.log(2 * math.pi * 0.25),
            "; 0.903 of it are the constant that nll leaves out",
        ),
    ],
    ids=["binary", "grey", "gaussian"],
)
def test_what_is_a_likelihood_is_told(pretended, monkeypatch, capsys, likelihood, pixel, bound, value, more):
    pretended.model.likelihood = likelihood
    images = torch.full((40, 1, 2, 2), pixel, dtype=torch.uint8)
    pretended.test_loader = lambda data_dir: ResidentLoader(images, batch_size=10, seed=0, shuffle=False)
    result = Evaluation(Metrics(11.5, 8.25, 3.25), torch.ones(2), torch.ones(2, dtype=torch.bool))
    monkeypatch.setattr(cli, "evaluate", lambda *_: result)
    assert run(["evaluate", "run"]) == 0
    assert capsys.readouterr().out.splitlines()[2] == f"-ELBO is {bound}"
    monkeypatch.setattr(cli, "estimate_nll", lambda *_: iter([torch.tensor([2.5])]))
    assert run(["nll", "run", "--samples", "1", "--images", "1"]) == 0
    pattern = rf"test -log p\(x\) {value:.3f} nats, standard .* 1 samples each, [\d.]+ s{re.escape(more)}"
    assert re.fullmatch(pattern, " ".join(capsys.readouterr().out.split()))


def test_one_image_has_no_standard_error(pretended, monkeypatch, capsys):
    monkeypatch.setattr(cli, "estimate_nll", lambda *_: iter([torch.tensor([2.5])]))
    assert run(["nll", "run", "--samples", "1", "--images", "1"]) == 0
    assert capsys.readouterr().out.startswith("test -log p(x) 2.500 nats, standard error nan over 1 images, 1 samples")


@pytest.mark.parametrize("flags", [["--images", "40"], []])
def test_all_test_images_may_be_asked_for(pretended, monkeypatch, capsys, flags):
    asked = []
    monkeypatch.setattr(cli, "estimate_nll", lambda model, images, *_: asked.append(images) or iter([torch.ones(40)]))
    assert run(["nll", "run", *flags]) == 0
    assert len(asked[0]) == 40
    assert run(["nll", "run", "--images", "41"]) == 2
    assert "use at most --images 40" in capsys.readouterr().err
