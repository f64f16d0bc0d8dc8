"""Runs over pictures: any loader gives the same run, a stop changes nothing, and what was trained is found again."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from pictures import photographs
from safetensors.torch import load_file

from fastvae.cli import run as fastvae
from fastvae.data import Dataset
from fastvae.evaluate.saved_run import SavedRun
from fastvae.models import build
from fastvae.nn import Bernoulli, ContinuousBernoulli, Gaussian
from fastvae.train.cli import main
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.distributed.world import World
from fastvae.train.inputs import check_own_pixels, check_pixels, deliver, open_data
from fastvae.utils.errors import InputError
from fastvae.utils.terminal import Terminal

FLAGS = (
    "--preset", "conv64", "--image-size", "16", "--width", "8", "--latent-dim", "2", "--epochs", "2",
    "--batch-size", "7", "--schedule", "constant", "--crop", "random", "--flip", "--precision", "fp64",
    "--execution", "eager", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made, path = photographs(40, 30, 40), tmp_path_factory.mktemp("pictures")
    for index in range(40):
        file = path / f"{index % 3}" / f"{index}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(made.encoded(index))
    return path


@pytest.fixture
def train(folder, tmp_path, capfd):
    """Train with some flags into a folder of that name; returns the weights, and what was printed."""

    def call(name, *flags):
        out = tmp_path / name
        assert main([*FLAGS, "--data", str(folder), "--out", str(out), *flags]) == 0
        newest = max((out / "checkpoints").glob("step-*"))
        weights = {key: value for key, value in load_file(newest).items() if key.startswith("model.")}
        return weights, capfd.readouterr()

    return call


def same(left, right):
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def test_every_loader_gives_the_same_run(train, tmp_path):
    resident, printed = train("resident")
    assert "loader resident (" in printed.out
    assert same(resident, train("torch", "--loader", "torch", "--workers", "0")[0])
    cached, _ = train("cached", "--loader", "torch", "--cache", str(tmp_path / "cache"))
    assert same(resident, cached)
    kept = [json.loads(path.read_text())["shape"] for path in (tmp_path / "cache").glob("*/cache.json")]
    assert sorted(kept) == [[4, 3, 19, 19], [36, 3, 19, 19]]
    assert not same(resident, train("other", "--seed", "1")[0])


def test_a_cache_is_of_the_pictures_as_they_are(train, folder, tmp_path):
    flags = ("--loader", "torch", "--cache", str(tmp_path / "cache"))
    before, _ = train("before", *flags)
    picture = next(folder.rglob("5.jpg"))
    content = picture.read_bytes()
    try:
        picture.write_bytes(next(folder.rglob("6.jpg")).read_bytes())
        after, _ = train("after", *flags)
    finally:
        picture.write_bytes(content)
    assert not same(before, after)


def test_a_run_that_stops_in_an_epoch_goes_on_to_the_same_weights(train):
    whole, _ = train("whole", "--loader", "torch", "--workers", "0")
    train("stopped", "--loader", "torch", "--workers", "0", "--max-steps", "4")
    assert same(whole, train("stopped", "--loader", "resident", "--resume")[0])


def test_what_was_trained_is_looked_at_again(train, tmp_path, capfd):
    train("it", "--loader", "torch", "--workers", "0")
    lines = [json.loads(line) for line in (tmp_path / "it" / "metrics.jsonl").read_text().splitlines()]
    assert fastvae(["evaluate", str(tmp_path / "it")]) == 0
    printed = capfd.readouterr().out
    assert f"test ELBO {-lines[-1]['loss']:.1f}" in printed  # in fp32, and then of the same images
    bits = float(printed.split(" bits per dimension")[0].split()[-1])
    assert bits == pytest.approx(lines[-1]["loss"] / (3 * 16 * 16) / math.log(2), abs=1e-3)
    for command in ("sample", "reconstruct"):
        picture = tmp_path / f"{command}.png"
        assert fastvae([command, str(tmp_path / "it"), "--count", "4", "--out", str(picture)]) == 0
        assert picture.stat().st_size > 0


@pytest.mark.parametrize("precision", ["fp64", "bf16"])
def test_parts_clips_and_averages_of_convolutions(train, precision):
    flags = ("--precision", precision, "--execution", "traced", "--ema", "0.9")
    plain, _ = train("plain", *flags)
    parts, _ = train("parts", *flags, "--accumulate", "3", "--clip-norm", "1e9")
    for name, weight in plain.items():
        assert parts[name].stride() == weight.stride()
        torch.testing.assert_close(parts[name], weight, **({} if precision == "fp64" else {"rtol": 0.1, "atol": 5e-3}))


@pytest.mark.parametrize("preset", ["conv28", "resnet64", "ladder"])
def test_the_presets_train_on_the_embedded_data(preset, tmp_path):
    flags = ["--preset", preset, "--image-size", "16", "--width", "8", "--max-steps", "3", "--batch-size", "10"]
    assert main([*flags, "--no-autotune", "--out", str(tmp_path / "run")]) == 0
    assert fastvae(["evaluate", str(tmp_path / "run")]) == 0
    status = 2 if preset == "ladder" else 0  # which has two levels
    assert fastvae(["nll", str(tmp_path / "run"), "--samples", "2", "--images", "3"]) == status


@pytest.mark.parametrize("flags", [{"crop": "random", "flip": True}, {"flip": True}, {"binarize": True}, {}])
def test_a_saved_run_has_the_test_images_of_the_run_to_the_bit(folder, flags):
    config = resolve(TrainConfig(preset="conv64", data=str(folder), image_size=16, loader="torch", workers=0, **flags))
    world = World(0, 0, 1, torch.device("cpu"))
    dataset, _ = open_data(config, world)
    model = build(config.recipe, dataset.shape, 2, 8)
    run = SavedRun(folder, model, asdict(config), dataset.shape, epoch=1)
    loaders = deliver(config, dataset, world)
    for ours, theirs in zip(loaders.test, run.test_loader(None), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert ours.images.stride() == theirs.images.stride()
        assert (ours.row_offset, ours.rows) == (theirs.row_offset, theirs.rows)


def test_a_loader_that_cannot_be_is_one_line_in_every_process(folder):
    config = resolve(TrainConfig(preset="conv64", data="digits", image_size=16, loader="dali"))
    world = World(0, 0, 1, torch.device("cpu"))
    with pytest.raises(InputError, match="--loader dali decodes"):
        deliver(config, open_data(config, world)[0], world)


@pytest.mark.parametrize(
    ("scale", "shift", "remedy"),
    [
        (255, 0, r"float32 pixels in \[0, 255\].*: divide them by 255, or save them as uint8"),
        (65535, 0, r"pixels in \[0, 65535\].*: divide them by the highest that there can be"),
        (2, -1, r"pixels in \[-1, 1\].*: leave out the normalisation, or undo it: \(x - \(-1\)\) / 2"),
        (1.001, 0, r"pixels in \[0, 1.00100005\].*: leave out"),  # the numbers that are shown differ
    ],
)
def test_floats_outside_of_the_unit_interval_are_named_with_a_remedy_that_helps(scale, shift, remedy, capsys):
    images = torch.linspace(0, 1, 16).view(1, 1, 4, 4).repeat(4, 1, 1, 1) * scale + shift
    dataset = Dataset("mine", images, images)
    for preset in ("classic", "gaussian"):
        with pytest.raises(InputError, match=remedy):
            check_pixels(preset, dataset)
    for likelihood in (Bernoulli(), ContinuousBernoulli()):
        with pytest.raises(InputError, match=remedy):
            check_own_pixels(likelihood, dataset, Terminal())
    check_own_pixels(Gaussian(), dataset, Terminal())  # its decoder may put out anything
    said = " ".join(capsys.readouterr().out.split())
    assert ("divide them" in said) == (shift == 0 and scale > 1.5)
    fine = Dataset("mine", images.clamp(0, 1), images.clamp(0, 1))
    check_pixels("classic", fine)
    check_own_pixels(Bernoulli(), fine, Terminal())
