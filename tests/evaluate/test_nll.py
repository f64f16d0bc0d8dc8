"""`fastvae nll`: its line, its file, and the same numbers for any number of processes and after an interruption."""

import json
import math
import re
from types import SimpleNamespace

import pytest
import torch

from fastvae.cli import run
from fastvae.data import ResidentLoader
from fastvae.evaluate import nll
from fastvae.evaluate.nll_file import NllFile
from fastvae.nn import Bernoulli, Categorical, Gaussian


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "trained"
    flags = ["--epochs", "1", "--device", "cpu", "--latent-dim", "5", "--precision", "fp32", "--no-autotune"]
    assert run(["train", *flags, "--out", str(folder)]) == 0
    return folder


class Pretended:
    """A made-up run with test images of 2 x 2 pixels, and estimates that are given."""

    def __init__(self, monkeypatch, folder):
        self.estimates = [2.5]
        self.calls = []
        self.folder = folder
        self.likelihood = Categorical()
        self.images = torch.zeros(40, 1, 2, 2, dtype=torch.uint8)
        monkeypatch.setattr(nll.SavedRun, "open", lambda *_: self.opened())
        monkeypatch.setattr(nll, "NllEstimator", self.estimator)

    def opened(self):
        model = torch.nn.Linear(1, 1)
        model.likelihood, model.levels = self.likelihood, 1
        loader = ResidentLoader(self.images, batch_size=10, seed=0, shuffle=False)
        return SimpleNamespace(
            path=self.folder,
            model=model,
            settings={"preset": "classic", "seed": 3},
            shape=(1, 2, 2),
            announced_test_loader=lambda data_dir, quiet: loader,
        )

    def estimator(self, model, samples, seed, precision):
        self.calls.append((samples, seed, precision))

        def estimate(images, place):
            return torch.tensor(self.estimates, dtype=torch.float64)[place : place + len(images)]

        return _Estimator(estimate)

    def line(self, capsys, *flags):
        assert run(["nll", str(self.folder), *flags]) == 0
        return " ".join(capsys.readouterr().out.split())


class _Estimator:
    def __init__(self, estimate):
        self.estimate = estimate

    def at_once(self, images):
        return 3

    def __call__(self, images, place):
        return self.estimate(images, place)


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    return Pretended(monkeypatch, tmp_path)


def test_the_standard_error_is_that_of_the_mean(pretended, capsys):
    pretended.estimates = [1.0, 2.0, 3.0, 10.0]
    # The mean is 4 and the squared deviations sum to 50, so the variance is 50 / 3, over 4 images.
    line = f"test -log p(x) 4.000 nats, standard error {math.sqrt(50 / 3) / 2:.3f} over 4 images, 1,500 samples each, "
    told = pretended.line(capsys, "--samples", "1500", "--images", "4")
    assert re.match(re.escape(line) + r"fp32, [\d.]+ s each image's nll is in ", told)
    assert pretended.calls == [(1500, 3, "fp32")]


@pytest.mark.parametrize(
    ("likelihood", "pixel", "value", "more"),
    [
        (Bernoulli(), 255, 2.5, ""),
        (Bernoulli(), 7, 2.5, "; no log-likelihood: the cross-entropy of grey pixels is not normalised"),
        (
            Gaussian(0.25),
            7,
            2.5 + 2 * math.log(2 * math.pi * 0.25),
            "; 0.903 of it are the constant that nll leaves out",
        ),
    ],
    ids=["binary", "grey", "gaussian"],
)
def test_what_is_a_likelihood_is_told(pretended, capsys, likelihood, pixel, value, more):
    pretended.likelihood = likelihood
    pretended.images = torch.full((40, 1, 2, 2), pixel, dtype=torch.uint8)
    told = pretended.line(capsys, "--samples", "1", "--images", "1")
    pattern = rf"test -log p\(x\) {value:.3f} nats, standard error nan over 1 images, 1 samples each, fp32, [\d.]+ s"
    assert re.match(pattern + re.escape(more) + " each image", told)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_estimate_that_is_not_finite_is_an_error(pretended, capsys, bad):
    pretended.estimates = [1.0, 2.0, 3.0, bad]
    assert run(["nll", str(pretended.folder), "--images", "4"]) == 2
    assert "-log p(x) of an image is not finite" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("seconds", "said"), [(59.0, ""), (90.0, "this takes about 2 min: fewer --samples")])
def test_a_long_estimate_says_how_long_it_takes(seconds, said, capsys):
    nll._tell_time(seconds)
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("flags", [["--images", "40"], []])
def test_all_test_images_may_be_asked_for(pretended, capsys, flags):
    pretended.estimates = [1.0] * 40
    assert "over 40 images" in pretended.line(capsys, *flags)
    assert run(["nll", str(pretended.folder), "--images", "41"]) == 2
    assert "use at most --images 40" in capsys.readouterr().err


def test_an_interrupted_command_goes_on(trained, tmp_path, monkeypatch, capsys):
    file, whole = tmp_path / "some.json", tmp_path / "whole.json"
    flags = ["--samples", "20", "--device", "cpu"]
    assert run(["nll", str(trained), *flags, "--out", str(whole)]) == 0
    estimate, left = nll.NllEstimator.__call__, [2]

    def interrupted(self, images, place):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return estimate(self, images, place)

    monkeypatch.setattr(nll.NllEstimator, "at_once", lambda self, images: 50)
    monkeypatch.setattr(nll.NllEstimator, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(["nll", str(trained), *flags, "--out", str(file)])
    values = json.loads(file.read_text())["nll"]
    assert [value is None for value in values] == [False] * 100 + [True] * (len(values) - 100)
    left[0] = 1000
    capsys.readouterr()
    assert run(["nll", str(trained), *flags, "--out", str(file)]) == 0
    assert f"100 of {len(values)} images already" in " ".join(capsys.readouterr().err.split())
    assert left[0] == 1000 - math.ceil((len(values) - 100) / 50)
    expected = torch.tensor(json.loads(whole.read_text())["nll"])
    torch.testing.assert_close(torch.tensor(json.loads(file.read_text())["nll"]), expected, rtol=1e-5, atol=0)


def test_two_processes_make_the_same_numbers(trained, tmp_path):
    flags = ["--samples", "20", "--device", "cpu"]
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert run(["nll", str(trained), *flags, "--out", str(one)]) == 0
    assert run(["nll", str(trained), *flags, "--out", str(two), "--nproc", "2"]) == 0
    expected, found = (json.loads(file.read_text()) for file in (one, two))
    assert found["of"] == expected["of"]
    torch.testing.assert_close(torch.tensor(found["nll"]), torch.tensor(expected["nll"]), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"samples": 21}, "holds estimates of other samples"),
        ({"weights": "0"}, "holds estimates of other weights"),
        ({"images": "0", "seed": 1}, "holds estimates of other images, seed"),
    ],
)
def test_other_estimates_are_never_mixed_in(tmp_path, change, told, capsys, trained):
    file = tmp_path / "nll.json"
    flags = ["nll", str(trained), "--samples", "20", "--images", "5", "--device", "cpu", "--out", str(file)]
    assert run(flags) == 0
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "of": {**content["of"], **change}}))
    capsys.readouterr()
    assert run(flags) == 2
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"nll": 3}', '{"format": 1, "of": {}, "nll": []}', "not JSON", '{"format": 2}'],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, capsys, trained):
    file = tmp_path / "nll.json"
    file.write_text(text)
    assert run(["nll", str(trained), "--images", "5", "--device", "cpu", "--out", str(file)]) == 2
    assert "is not a file of fastvae nll" in " ".join(capsys.readouterr().err.split())
    assert file.read_text() == text


def test_a_file_that_cannot_be_written_is_an_error_only_if_it_was_asked_for(tmp_path, monkeypatch, capsys, trained):
    missing = tmp_path / "missing" / "nll.json"
    assert run(["nll", str(trained), "--images", "5", "--device", "cpu", "--out", str(missing)]) == 2
    assert "choose another --out" in " ".join(capsys.readouterr().err.split())

    def refuse(self):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(NllFile, "_write", refuse)
    assert run(["nll", str(trained), "--images", "5", "--samples", "20", "--device", "cpu"]) == 0
    assert "each image's nll" not in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_the_precision_is_told(trained, tmp_path, capsys, precision):
    file = tmp_path / "nll.json"
    flags = ["--images", "5", "--samples", "20", "--device", "cpu", "--precision", precision, "--out", str(file)]
    assert run(["nll", str(trained), *flags]) == 0
    assert f"20 samples each, {precision}, " in " ".join(capsys.readouterr().out.split())
