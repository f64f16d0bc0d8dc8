"""Whole runs: what they leave behind, that they learn, and that stopping them loses nothing."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastvae.train.checkpoint import checkpoint
from fastvae.train.engine import Engine
from fastvae.train.step.recording import record


def weights(folder):
    return checkpoint.newest(folder / "checkpoints")[1].tensors


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_run_leaves_everything_that_the_design_names(train_and_plot, metrics):
    status, folder = train_and_plot("--epochs", "3")
    assert status == 0
    lines = metrics(folder)
    assert [(line["epoch"], line["split"]) for line in lines] == [(e, s) for e in (1, 2, 3) for s in ("train", "test")]
    assert set(lines[0]) == {"epoch", "step", "split", "loss", "nll", "kl", "images_per_s"}
    for line in lines:
        assert line["loss"] == pytest.approx(line["nll"] + line["kl"])
        assert line["images_per_s"] > 0
    assert lines[-1]["loss"] < lines[1]["loss"] < 40  # 64 ln 2 = 44.4 nats is knowing nothing
    config = json.loads((folder / "config.json").read_text())
    assert config["world_size"] == 1
    assert config["settings"]["batch_size"] == 128
    assert {"torch", "fastvae", "python"} <= set(config["versions"])
    for name in ("loss.png", "samples.png", "reconstructions.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_tensorboard_has_the_tutorials_scalars_and_image(train):
    _, folder = train("--epochs", "5", "--preset", "leaky")
    events = EventAccumulator(str(folder)).Reload()
    names = ("Reconstruction Error", "KL-Divergence", "Total Loss")
    assert {f"{split}/{name}" for split in ("Train", "Test") for name in names} == set(events.Tags()["scalars"])
    assert len(events.Scalars("Test/Total Loss")) == 5
    assert [event.step for event in events.Scalars("Train/Total Loss")] == [50]
    assert events.Tags()["images"] == ["Test image - above: real data, below: reconstruction"]


def test_the_same_seed_is_the_same_run_and_another_is_not(train):
    runs = [weights(train("--epochs", "1", "--seed", seed, out=f"run{i}")[1]) for i, seed in enumerate("112")]
    assert_same(runs[0], runs[1])
    assert not torch.equal(runs[0]["model.decoder.0.weight"], runs[2]["model.decoder.0.weight"])


@pytest.mark.parametrize("execution", ["eager", "traced"])
def test_pixels_in_floats_train_like_those_in_bytes(train, metrics, tmp_path, execution):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
    losses = []
    for name, images in {"bytes": pixels, "floats": (pixels / 255).astype(np.float32)}.items():
        np.save(tmp_path / f"{name}.npy", images)
        flags = ["--data", str(tmp_path / f"{name}.npy"), "--execution", execution, "--precision", "fp32"]
        folder = train(*flags, "--epochs", "2", "--batch-size", "16", out=name)[1]
        losses.append([line["loss"] for line in metrics(folder)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_going_on_for_more_epochs_is_the_longer_run(train, metrics):
    whole, parts = train("--epochs", "4", out="whole")[1], train("--epochs", "2", out="parts")[1]
    assert train("--epochs", "4", "--resume", out="parts")[0] == 0
    assert_same(weights(whole), weights(parts))
    assert without_rates(metrics(whole)) == without_rates(metrics(parts))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_mid_epoch_loses_nothing(train, metrics, monkeypatch, number, capsys):
    whole = train("--epochs", "3", out="whole")[1]
    taken, handler = [], signal.getsignal(number)  # CI may start this with SIGINT ignored
    step = Engine.train_step

    def interrupted(self, batch):
        taken.append(batch)
        if len(taken) == 17:
            os.kill(os.getpid(), number)
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "train_step", interrupted)
        status, parts = train("--epochs", "3", out="parts")
    assert status == 128 + number
    assert len(taken) == 17
    assert "at step 17, nothing is lost" in capsys.readouterr().out
    assert signal.getsignal(number) is handler

    assert train("--epochs", "3", "--resume", out="parts")[0] == 0
    assert_same(weights(whole), weights(parts))
    assert without_rates(metrics(whole)) == without_rates(metrics(parts))


def test_a_kill_costs_no_more_than_the_steps_since_the_checkpoint(train, metrics, monkeypatch):
    whole = train("--epochs", "3", out="whole")[1]

    def killed(self, loader, epoch):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "evaluate", killed)
        with pytest.raises(SystemExit):
            train("--epochs", "3", "--checkpoint-every", "5", out="parts")
    status, parts = train("--epochs", "3", "--checkpoint-every", "5", "--resume", out="parts")
    assert status == 0
    assert_same(weights(whole), weights(parts))
    assert without_rates(metrics(whole)) == without_rates(metrics(parts))


def test_a_damaged_checkpoint_is_passed_over_and_said(train, capsys):
    _, folder = train("--epochs", "2", "--checkpoint-every", "6")
    whole = weights(folder)
    newest = checkpoint.newest(folder / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-5])
    assert train("--epochs", "2", "--checkpoint-every", "6", "--resume")[0] == 0
    assert f"passed over for an earlier checkpoint: {newest}" in capsys.readouterr().out
    assert_same(whole, weights(folder))


@pytest.mark.parametrize(
    "flags",
    [
        ("--precision", "bf16"),
        pytest.param(("--precision", "fp16"), marks=pytest.mark.slow),
        ("--backend", "reference"),
    ],
)
def test_other_precisions_and_backends_learn_the_same(train, metrics, flags):
    plain, other = train("--epochs", "4", out="plain")[1], train("--epochs", "4", *flags, out="other")[1]
    assert metrics(other)[-1]["loss"] == pytest.approx(metrics(plain)[-1]["loss"], rel=0.01)


@pytest.mark.parametrize(
    "flags", ["iwae", "dreg --samples 3", "stl", "tcvae --beta 4", "free-bits --free-bits 0.2", "elbo --beta 4"]
)
def test_objectives_learn_and_their_test_loss_is_the_elbo(train, metrics, flags):
    status, folder = train("--epochs", "4", "--objective", *flags.split(), "--latent-dim", "5")
    assert status == 0
    lines = metrics(folder)
    tests = [line for line in lines if line["split"] == "test"]
    assert tests[-1]["loss"] < tests[0]["loss"]
    for line in tests:
        assert line["loss"] == pytest.approx(line["nll"] + line["kl"], rel=1e-6)
    assert lines[-2]["split"] == "train"
    assert lines[-2]["loss"] != pytest.approx(lines[-2]["nll"] + lines[-2]["kl"], rel=1e-6)


def test_the_kl_follows_its_capacity(train, metrics):
    flags = ["--objective", "capacity", "--capacity", "6", "--capacity-steps", "36", "--beta", "100"]
    folder = train("--epochs", "12", *flags)[1]
    kl = [line["kl"] for line in metrics(folder) if line["split"] == "train"]
    assert kl[0] < 3  # 12 steps an epoch: the first three raise the capacity
    assert kl[-1] == pytest.approx(6, abs=0.6)


def test_traced_steps_are_the_eager_ones_to_the_bit_but_for_products_and_sums_of_biases(train, metrics, monkeypatch):
    """Those are added in another order than torch's: the tests of the passes and of mm compare them."""
    monkeypatch.setattr(record, "batch_matmuls", lambda graph, *, fused: None)
    monkeypatch.setattr(record, "onednn_matmuls", lambda graph, *, fused: None)
    monkeypatch.setattr(record, "fuse_activations", lambda graph: None)
    plain, other = (train("--epochs", "2", "--execution", how, out=how)[1] for how in ("eager", "traced"))
    assert without_rates(metrics(plain)) == without_rates(metrics(other))
    assert_same(weights(plain), weights(other))


def without_rates(lines):
    return [{key: value for key, value in line.items() if key != "images_per_s"} for line in lines]


def test_half_a_line_of_metrics_is_dropped(train, metrics):
    _, folder = train("--epochs", "1")
    expected = without_rates(metrics(folder))
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": 2, "st\0\0')
    assert train("--epochs", "1", "--resume")[0] == 0
    assert without_rates(metrics(folder)) == expected


@pytest.mark.parametrize(
    ("agent", "again", "status"), [("ours", True, 0), ("another", True, 2), ("ours", False, 2)], ids=str
)
def test_what_is_started_again_goes_on_with_its_own_run_alone(train, monkeypatch, capsys, agent, again, status):
    """Neither with that of another agent, nor with one that this same process has begun."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", agent)
    train("--epochs", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "ours")
    if again:
        monkeypatch.setattr("fastvae.train.start.begin._STARTED", set())
    capsys.readouterr()
    assert train("--epochs", "2")[0] == status
    output = capsys.readouterr()
    assert "going on from" in output.out if status == 0 else "already holds a run" in output.err
