"""How a run ends before its epochs do, what it leaves then, and which checkpoint is the best."""

import os

import pytest
import torch

from fastvae.cli import run
from fastvae.evaluate.saved_run import SavedRun
from fastvae.train.checkpoint import checkpoint
from fastvae.train.checkpoint.best import FILE
from fastvae.train.engine import Engine

CPU = torch.device("cpu")


def last(folder):
    return checkpoint.newest(folder / "checkpoints")[1]


def assert_same_weights(first, second):
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name]), name


def without_rates(lines):
    return [{key: value for key, value in line.items() if key != "images_per_s"} for line in lines]


@pytest.fixture
def worse_from(monkeypatch):
    """Make the test loss rise from an epoch on."""
    evaluate = Engine.evaluate

    def start(best):
        def worse(self, loader, epoch):
            terms = evaluate(self, loader, epoch)
            return terms._replace(loss=terms.loss + 100 * max(0, epoch - best))

        monkeypatch.setattr(Engine, "evaluate", worse)

    return start


@pytest.mark.parametrize("steps", [17, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (5, 12, 24))])
def test_max_steps_ends_it_there_and_more_of_them_go_on(train, metrics, steps, capsys):
    whole = train("--epochs", "2", out="whole")[1]
    status, parts = train("--epochs", "2", "--max-steps", str(steps), out="parts")
    assert status == 0
    assert ("ended by --max-steps" in capsys.readouterr().out) == (steps < 24)
    assert last(parts).values["step"] == steps
    lines = metrics(parts)
    assert (lines[-1]["step"], lines[-1]["split"], lines[-1]["epoch"]) == (steps, "test", -(-steps // 12))
    for name in ("loss.png", "samples.png", "reconstructions.png"):
        assert (parts / name).exists()
    # The same end again is the same run again.
    assert train("--epochs", "2", "--max-steps", str(steps), "--resume", out="parts")[0] == 0
    assert without_rates(metrics(parts)) == without_rates(lines)
    assert train("--epochs", "2", "--resume", out="parts")[0] == 0
    assert_same_weights(last(whole), last(parts))
    assert without_rates(metrics(parts)) == without_rates(metrics(whole))


def test_a_run_that_ended_in_mid_epoch_is_evaluated_to_its_own_figure(train, metrics, capsys):
    _, folder = train("--epochs", "2", "--max-steps", "17")
    capsys.readouterr()
    assert run(["evaluate", str(folder), "--device", "cpu"]) == 0
    assert f"{-metrics(folder)[-1]['loss']:.3f}"[:-1] in capsys.readouterr().out


def test_a_time_budget_is_a_clean_end(train, metrics, capsys):
    status, folder = train("--epochs", "100000", "--time-budget", "0.5")
    assert status == 0
    assert "ended by --time-budget at step" in capsys.readouterr().out
    assert metrics(folder)[-1]["split"] == "test"
    assert (folder / "samples.png").exists()


def test_patience_counts_the_epochs_since_the_best(train, metrics, worse_from, capsys):
    worse_from(2)
    status, folder = train("--epochs", "50", "--patience", "3")
    assert status == 0
    assert metrics(folder)[-1]["epoch"] == 5
    assert "no better test loss for 3 epochs: the best is that of epoch 2" in capsys.readouterr().out


def test_patience_goes_on_counting_after_a_resume(train, metrics, worse_from):
    worse_from(2)
    _, folder = train("--epochs", "4", "--patience", "3")
    assert metrics(folder)[-1]["epoch"] == 4
    assert train("--epochs", "50", "--patience", "3", "--resume")[0] == 0
    assert metrics(folder)[-1]["epoch"] == 5
    assert train("--epochs", "50", "--patience", "3", "--resume")[0] == 0  # ended before it began
    assert metrics(folder)[-1]["epoch"] == 5


def test_a_loss_that_is_nan_is_never_the_best(train, metrics, monkeypatch):
    evaluate = Engine.evaluate
    monkeypatch.setattr(Engine, "evaluate", lambda *arguments: evaluate(*arguments)._replace(loss=float("nan")))
    _, folder = train("--epochs", "9", "--patience", "2")
    assert metrics(folder)[-1]["epoch"] == 2
    assert not (folder / "checkpoints" / FILE).exists()


def test_best_and_last_are_both_there_to_look_at(train, metrics, worse_from, capsys, tmp_path):
    worse_from(2)
    two = last(train("--epochs", "2", out="two")[1])
    _, folder = train("--epochs", "4", out="four")
    assert sorted(os.listdir(folder / "checkpoints")) == [FILE, "step-000000048.safetensors"]
    best, newest = (SavedRun.open(folder, CPU, which) for which in ("best", "last"))
    assert (best.epoch, newest.epoch) == (2, 4)
    for name, tensor in best.model.state_dict().items():
        assert torch.equal(tensor, two.tensors[f"model.{name}"])
    capsys.readouterr()
    assert run(["evaluate", str(folder), "--device", "cpu", "--checkpoint", "best"]) == 0
    test = next(line for line in metrics(folder) if (line["epoch"], line["split"]) == (2, "test"))
    assert f"{-test['loss']:.2f}" in capsys.readouterr().out
    for command in ("sample", "reconstruct"):
        assert run([command, str(folder), "--checkpoint", "best", "--out", str(tmp_path / "x.png")]) == 0


def test_no_best_yet(train, capsys):
    _, folder = train("--epochs", "2", "--max-steps", "3")
    capsys.readouterr()
    assert run(["evaluate", str(folder), "--checkpoint", "best"]) == 2
    assert "has no best checkpoint, as no epoch was finished and saved" in capsys.readouterr().err
