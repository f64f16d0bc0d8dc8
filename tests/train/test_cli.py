"""Bad input: one line that names both values and the remedy, status 2, no traceback, nothing written."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fastvae.train import TrainConfig, cli
from fastvae.train.cli import main


def refused(flags, message, capsys):
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"fastvae: error: .*{message}.*\n", error), error


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("original") / "run"
    flags = ["--epochs", "1", "--device", "cpu", "--no-autotune", "--precision", "fp32"]
    assert main([*flags, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy of it."""
    return shutil.copytree(original, tmp_path / "run")


def test_a_folder_that_holds_a_run_already(folder, capsys):
    before = (folder / "metrics.jsonl").read_text()
    refused(["--out", str(folder)], "already holds a run: add --resume", capsys)
    assert (folder / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--seed", "5"),
        ("--preset", "deep"),
        ("--latent-dim", "3"),
        ("--optimizer", "sgd"),
        ("--ema", "0.9"),
        ("--binarize", "True"),
        ("--image-size", "16"),
        ("--flip", "True"),
    ],
)
def test_what_cannot_change_says_why(folder, capsys, flag, value):
    flags = [flag] if flag == "--flip" else [flag, value]
    refused(
        ["--resume", str(folder), *flags],
        rf"trained with {flag} .* and cannot go on with {value}, as its .*: leave it out, or start a new run",
        capsys,
    )


def test_a_run_of_an_older_version_had_the_defaults(train, folder, capsys):
    config = json.loads((folder / "config.json").read_text())
    config["settings"] = {key: config["settings"][key] for key in ("preset", "data", "batch_size", "lr", "latent_dim")}
    config["settings"] |= {"beta": 1.0, "seed": 0}
    (folder / "config.json").write_text(json.dumps(config))
    refused(["--out", str(folder), "--resume", "--ema", "0.9"], "trained with --ema None and cannot go", capsys)
    assert train("--epochs", "2", "--resume")[0] == 0


def test_a_new_run_from_weights_is_not_one_that_resumes(folder, capsys):
    refused(["--resume", str(folder), "--init-from", "x.pt"], "--init-from x.pt starts a new run, but --resume", capsys)
    refused(["--resume", str(folder), "--out", "x"], f"--resume is {folder}, but --out is x: give one of them", capsys)


def test_resuming_nothing(tmp_path, capsys):
    refused(["--out", str(tmp_path), "--resume"], "holds no run", capsys)


def test_resuming_what_has_no_whole_checkpoint(folder, capsys):
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"")
    refused(["--out", str(folder), "--resume", "--epochs", "2"], "no checkpoint to go on from", capsys)


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(train, metrics, capsys):
    _, folder = train("--epochs", "2")
    expected = metrics(folder)
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    capsys.readouterr()
    assert train("--epochs", "2", "--resume")[0] == 0
    assert "has no checkpoint yet: the run starts from the beginning" in capsys.readouterr().out
    terms = ("epoch", "step", "split", "loss", "nll", "kl")
    assert [[line[t] for t in terms] for line in metrics(folder)] == [[line[t] for t in terms] for line in expected]


def test_a_broken_config(folder, capsys):
    (folder / "config.json").write_text("{")
    refused(["--out", str(folder), "--resume"], "cannot be read as a run's settings", capsys)


def test_out_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    refused(["--out", str(tmp_path / "file" / "run")], "cannot write to .* choose another --out", capsys)


def test_normalised_pixels(tmp_path, capsys):
    np.save(tmp_path / "normal.npy", np.random.default_rng(0).normal(size=(40, 4, 4)).astype("float32"))
    flags = ["--data", str(tmp_path / "normal.npy"), "--out", str(tmp_path / "run"), "--epochs", "1"]
    refused(flags, r"pixels in \[-.*Bernoulli.*leave out the normalisation, or undo it", capsys)
    refused([*flags, "--preset", "gaussian"], r"a Gaussian whose mean is a sigmoid, which needs \[0, 1\]", capsys)


def test_pixels_that_are_no_bytes_are_not_binarized(tmp_path, capsys):
    np.save(tmp_path / "floats.npy", np.random.default_rng(0).random((40, 4, 4)).astype("float32"))
    flags = ["--data", str(tmp_path / "floats.npy"), "--out", str(tmp_path / "run"), "--binarize"]
    refused(flags, r"--binarize draws from uint8 pixels, but .*floats.npy has torch.float32: use --bin", capsys)
    assert not (tmp_path / "run").exists()


def test_the_process_itself_exits_with_2():
    command = [sys.executable, "-m", "fastvae.train", "--epochs", "0"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "fastvae: error: --epochs is 0: it must be at least 1\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("settings", "environment", "expected"),
    [
        ({"preset": "leaky"}, {}, True),
        ({"preset": "leaky", "nproc": 1}, {}, True),
        ({"preset": "conv28"}, {}, False),
        ({"preset": "leaky", "nproc": 2}, {}, False),
        ({"preset": "leaky", "deterministic": True}, {}, False),
        ({"preset": "leaky", "autotune": False}, {}, False),
        ({"preset": "leaky", "resume": True}, {}, False),
        ({"preset": "leaky", "data": "."}, {}, False),
        ({"preset": "leaky", "data": "torchvision:SVHN"}, {}, False),
        ({"preset": "leaky"}, {"OMP_NUM_THREADS": "2"}, False),
    ],
)
def test_runs_that_give_way_may_wait_longer(settings, environment, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli._gives_way(TrainConfig(**settings)) == expected
