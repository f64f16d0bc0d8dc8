"""The figures and pictures of a run, compared with its log and with the commands that open it again."""

import re

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastvae.cli import run
from fastvae.ops import bits_per_dimension
from fastvae.train.engine import Engine

TRAIN = 1497  # images of the digits


def logged(folder, split="Train"):
    """Return the losses of a split in TensorBoard, by step."""
    events = EventAccumulator(str(folder)).Reload()
    return {event.step: event.value for event in events.Scalars(f"{split}/Total Loss")}


def test_a_logged_loss_is_the_mean_since_the_last_look(train, metrics, monkeypatch):
    monkeypatch.setattr("fastvae.train.loop.LOG_EVERY", 1)
    _, each = train("--epochs", "1", "--execution", "eager", out="each")
    single = logged(each)
    assert list(single) == list(range(1, 13))
    images = [*[128] * 11, TRAIN - 11 * 128]
    monkeypatch.setattr("fastvae.train.loop.LOG_EVERY", 5)
    flags = ("--execution", "eager")
    _, whole = train(*flags, "--epochs", "1", out="whole")
    train(*flags, "--max-steps", "8", out="parts")
    _, parts = train(*flags, "--epochs", "1", "--resume", out="parts")
    first = sum(single[step] for step in range(1, 6)) / 5
    assert logged(whole) == pytest.approx({5: first, 10: sum(single[step] for step in range(6, 11)) / 5}, rel=1e-5)
    assert logged(parts) == pytest.approx({5: first, 10: (single[9] + single[10]) / 2}, rel=1e-5)
    mean = sum(loss * count for loss, count in zip(single.values(), images, strict=True)) / TRAIN
    for folder in (each, whole, parts):
        assert metrics(folder)[-2]["loss"] == pytest.approx(mean, rel=1e-5)
        assert logged(folder, "Test")[12] == pytest.approx(metrics(folder)[-1]["loss"], rel=1e-6)


def test_how_many_images_are_evaluated_at_once_changes_no_figure(train, metrics, monkeypatch):
    lines = []
    for out, size in (("whole", 1000), ("parts", 70)):
        monkeypatch.setattr("fastvae.data.deliver._EVAL_BATCH", size)
        _, folder = train("--epochs", "1", "--execution", "eager", out=out)
        lines.append(metrics(folder)[-1])
    for name in ("loss", "nll", "kl"):
        assert lines[0][name] == pytest.approx(lines[1][name], rel=1e-6), name


def test_the_commands_draw_the_runs_own_pictures(train, tmp_path):
    _, folder = train("--max-steps", "3", "--seed", "5")
    for command, name, count in (("sample", "samples", "64"), ("reconstruct", "reconstructions", "32")):
        more = ["--seed", "5"] if command == "sample" else []
        file = tmp_path / f"{command}.png"
        assert run([command, str(folder), "--count", count, "--out", str(file), "--device", "cpu", *more]) == 0
        assert file.read_bytes() == (folder / f"{name}.png").read_bytes(), command


@pytest.mark.parametrize(
    "flags",
    [("--crop", "random", "--image-size", "7"), ("--binarize", "True", "--seed", "9"), ("--ema", "0.5")],
    ids=str,
)
def test_evaluate_finds_the_runs_own_figure_again(train, metrics, capsys, flags):
    _, folder = train("--max-steps", "15", *flags)
    line = metrics(folder)[-1]
    capsys.readouterr()
    assert run(["evaluate", str(folder), "--device", "cpu"]) == 0
    found = re.search(r"test ELBO (-[\d.]+) nats = -\(nll ([\d.]+) \+ kl ([\d.]+)\)", capsys.readouterr().out)
    elbo, nll, kl = map(float, found.groups())
    assert (-elbo, nll, kl) == pytest.approx((line["loss"], line["nll"], line["kl"]), abs=6e-4)


def test_bits_are_of_all_channels(train, tmp_path, metrics, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    flags = ("--data", str(tmp_path / "x.npy"), "--preset", "conv64", "--image-size", "8", "--width", "8")
    _, folder = train(*flags, "--latent-dim", "2", "--max-steps", "1", "--batch-size", "8")
    bits = bits_per_dimension(metrics(folder)[-1]["loss"], 3 * 8 * 8)
    assert re.search(rf"bits per dimension +│ {bits:.3f}, by the test loss", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((), "not a bound on -log p(x): the cross-entropy of grey pixels is not normalised"),
        (("--binarize",), "an upper bound on -log p(x)"),
        (("--preset", "gaussian"), "an upper bound on -log p(x), with the 58.81 nats per image that nll leaves out: "),
    ],
    ids=str,
)
def test_the_table_says_what_is_a_likelihood(train, metrics, capsys, monkeypatch, flags, text):
    monkeypatch.setenv("COLUMNS", "200")
    _, folder = train("--max-steps", "1", *flags)
    row = re.search(r"as a likelihood +│ (.*?) +│", capsys.readouterr().out)[1]
    assert row == (f"{text}{metrics(folder)[-1]['loss'] + 58.8121:.2f} nats" if text.endswith(": ") else text)


@pytest.mark.parametrize(
    ("flags", "row"),
    [
        ((), None),
        (("--beta", "4"), "elbo, beta 4: the train loss is its own"),
        (("--objective", "iwae"), "iwae: the train loss is its own"),
    ],
)
def test_what_was_minimised_is_told_where_it_is_not_the_elbo(train, capsys, flags, row):
    train("--max-steps", "1", *flags)
    found = re.search(r"minimised +│ (.*?) +│", capsys.readouterr().out)
    assert (found and found[1]) == row


@pytest.fixture
def losses(monkeypatch):
    """Replace the test losses of the epochs by the numbers in a list."""
    monkeypatch.setenv("COLUMNS", "200")
    made_up, evaluate = [], Engine.evaluate

    def evaluated(engine, loader, epoch):
        return evaluate(engine, loader, epoch)._replace(loss=made_up[epoch - 1])

    monkeypatch.setattr(Engine, "evaluate", evaluated)
    return made_up


def test_the_best_epoch_is_told_where_it_is_not_the_last(train, losses, capsys):
    losses += [30.0, 20.25, 20.25, 25.5]  # of equal ones, the first is the best
    _, folder = train("--epochs", "4", "--execution", "eager")
    output = capsys.readouterr().out
    line = r"on digits, 1,497 images, on cpu, 1 process, \d threads?: fp32, eager \(chosen without a trial\); loader"
    assert re.search(line, output)
    assert re.search(r"best test loss +│ 20\.25 nats, epoch 2: look at it with --checkpoint best", output)
    assert re.search(r"test loss \(negative ELBO\) +│ 25\.50 nats = nll ", output)
    assert run(["evaluate", str(folder), "--checkpoint", "best"]) == 0
    assert "classic, 2 epochs, on 300 test images" in capsys.readouterr().out


def test_a_last_epoch_that_is_the_best_is_not_told(train, losses, capsys):
    losses += [30.0, 20.0]
    train("--epochs", "2", "--execution", "eager")
    assert "best test loss" not in capsys.readouterr().out
