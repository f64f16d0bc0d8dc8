"""Bad input: one line that names both values and the remedy, status 2, no traceback, nothing written."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fastvae.train.command import main

BAD = {
    "preset": (["--preset", "huge"], r"huge"),
    "unknown flag": (["--momentum", "3"], r"momentum"),
    "epochs": (["--epochs", "0"], r"--epochs is 0: it must be at least 1"),
    "epochs text": (["--epochs", "many"], r"many"),
    "batch": (["--batch-size", "-1"], r"--batch-size is -1: it must be at least 1"),
    "latent": (["--latent-dim", "0"], r"--latent-dim is 0: it must be at least 1"),
    "checkpoints": (["--checkpoint-every", "0"], r"--checkpoint-every is 0: it must be at least 1"),
    "lr": (["--lr", "0"], r"--lr is 0.0: it must be a finite number, above 0"),
    "lr nan": (["--lr", "nan"], r"--lr is nan"),
    "lr inf": (["--lr", "inf"], r"--lr is inf"),
    "beta": (["--beta", "-1"], r"--beta is -1.0: it must be a finite number, 0 or more"),
    "seed": (["--seed", "-1"], r"--seed is -1: it must be in \[0, 2\*\*63\)"),
    "objective": (["--objective", "gan"], r"gan"),
    "binarize": (["--binarize", "maybe"], r"expected True, False or nothing, which is True, but got maybe"),
    "binarized gaussian": (
        ["--preset", "gaussian", "--binarize"],
        r"--binarize goes with a Bernoulli likelihood, but the model's is Gaussian: use --binarize False",
    ),
    "no samples": (["--samples", "3"], r"--samples is 3, but --objective elbo has none: leave it out"),
    "samples": (["--objective", "iwae", "--samples", "0"], r"--samples is 0: it must be at least 1"),
    "no capacity": (["--objective", "capacity"], r"--objective capacity needs --capacity NATS: add it"),
    "capacity": (["--objective", "capacity", "--capacity", "-1"], r"--capacity is -1\.0: it must be a finite number"),
    "free bits": (
        ["--objective", "free-bits", "--free-bits", "nan"],
        r"--free-bits is nan: it must be a finite number",
    ),
    "bounds have no beta": (
        ["--objective", "iwae", "--beta", "2"],
        r"iwae has no beta, but --beta is 2\.0: leave it out",
    ),
    "precision": (["--precision", "fp8"], r"fp8"),
    "device": (["--device", "tpu"], r"tpu"),
    "no gpu": (["--device", "cuda"], r"cuda.*--device cpu"),
    "backend": (["--backend", "magic"], r"magic"),
    "native on a gpu": (["--backend", "native", "--device", "cuda"], r"native runs on the CPU, but --device is cuda"),
    "nproc": (["--nproc", "0"], r"--nproc 0 is less than 1"),
    "resume alone": (["--resume"], r"--resume needs .* --out DIR"),
    "optimizer": (["--optimizer", "adamm"], r"--optimizer adamm is not in torch.optim: use one of adadelta, .*, sgd"),
    "lbfgs": (["--optimizer", "LBFGS"], r"--optimizer lbfgs evaluates the loss several times a step: use one of"),
    "sparse": (["--optimizer", "sparseadam"], r"--optimizer sparseadam takes sparse gradients only: use one of"),
    "muon": (["--optimizer", "muon"], r"--optimizer muon takes matrices only"),
    "no option": (
        ["--optimizer-options", "momentum", "1"],
        r"--optimizer-options momentum is no option of adam: it has eps, weight_decay, amsgrad",
    ),
    "own option": (["--optimizer-options", "fused", "1"], r"--optimizer-options fused is no option of adam"),
    "option": (["--optimizer-options", "weight_decay", "-1"], r"--optimizer-options: adam says: Invalid weight_decay"),
    "switch": (["--optimizer-options", "amsgrad", "3"], r"options amsgrad is 3, but it is a switch: use 0 or 1"),
    "option inf": (
        ["--optimizer-options", "eps", "inf"],
        r"--optimizer-options eps is inf: it must be a finite number",
    ),
    "option alone": (["--optimizer-options", "eps"], r"optimizer-options"),
    "schedule": (["--schedule", "linear"], r"linear"),
    "warmup": (["--warmup-steps", "-1"], r"--warmup-steps is -1: it must be at least 0"),
    "decay": (
        ["--schedule", "step", "--decay-epochs", "2", "--decay", "0"],
        r"--decay is 0.0: it must be a finite number, above 0",
    ),
    "decay without step": (["--decay", "0.5"], r"--decay is 0.5, but --schedule constant has none: leave it out"),
    "step without length": (["--schedule", "step"], r"--schedule step needs a length: add --decay-epochs N"),
    "decay epochs": (["--schedule", "step", "--decay-epochs", "0"], r"--decay-epochs is 0: it must be at least 1"),
    "length without step": (
        ["--decay-epochs", "3"],
        r"--decay-epochs is 3, but --schedule constant has no such length",
    ),
    "beta without length": (["--beta-schedule", "warmup"], r"--beta-schedule warmup needs .*: add --beta-steps N"),
    "beta steps": (["--beta-schedule", "warmup", "--beta-steps", "0"], r"--beta-steps is 0: it must be at least 1"),
    "length without beta": (["--beta-steps", "9"], r"--beta-steps is 9, but --beta-schedule constant has no such"),
    "accumulate": (["--accumulate", "0"], r"--accumulate is 0: it must be at least 1"),
    "more parts than images": (
        ["--accumulate", "9", "--batch-size", "8"],
        r"--accumulate is 9, but a batch has 8 images: use at most --accumulate 8",
    ),
    "clip": (["--clip-norm", "0"], r"--clip-norm is 0.0: it must be a finite number, above 0"),
    "clip nan": (["--clip-norm", "nan"], r"--clip-norm is nan"),
    "ema": (["--ema", "1"], r"--ema is 1.0: it must be in \[0, 1\), 0.999 say"),
    "ema nan": (["--ema", "nan"], r"--ema is nan"),
    "max steps": (["--max-steps", "0"], r"--max-steps is 0: it must be at least 1"),
    "time": (["--time-budget", "0"], r"--time-budget is 0.0: it must be a finite number, above 0"),
    "time inf": (["--time-budget", "inf"], r"--time-budget is inf"),
    "patience": (["--patience", "0"], r"--patience is 0: it must be at least 1"),
    "tf32": (["--tf32", "--device", "cpu"], r"--tf32 needs a GPU, but the run is on cpu: leave it out"),
    "data": (["--data", "imagenet"], r"imagenet"),
    "data file": (["--data", "nowhere.npy"], r"nowhere.npy"),
    "data dir": (["--data", "mnist", "--data-dir", "nowhere"], r"nowhere"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_flags(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags, message = BAD[case]
    if case == "no gpu":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    try:
        status = main(flags)
    except SystemExit as stop:  # the parser's own
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert re.search(message, " ".join((captured.err + captured.out).split()))
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


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
        ("--batch-size", "64"),
        ("--seed", "5"),
        ("--preset", "deep"),
        ("--lr", "1.0"),
        ("--optimizer", "sgd"),
        ("--schedule", "iwae"),
        ("--warmup-steps", "3"),
        ("--clip-norm", "2.0"),
        ("--ema", "0.9"),
        ("--beta", "3.0"),
        ("--binarize", "True"),
    ],
)
def test_resuming_with_other_settings(folder, capsys, flag, value):
    refused(["--out", str(folder), "--resume", flag, value], rf"trained with {flag} .*, not {value}", capsys)


def test_a_run_of_an_older_version_had_the_defaults(train, folder, capsys):
    config = json.loads((folder / "config.json").read_text())
    config["settings"] = {key: config["settings"][key] for key in ("preset", "data", "batch_size", "lr", "latent_dim")}
    config["settings"] |= {"beta": 1.0, "seed": 0}
    (folder / "config.json").write_text(json.dumps(config))
    refused(["--out", str(folder), "--resume", "--ema", "0.9"], "trained with --ema None, not 0.9", capsys)
    assert train("--epochs", "2", "--resume")[0] == 0


def test_a_cosine_ends_where_it_was_to_end(train, capsys):
    _, folder = train("--epochs", "1", "--schedule", "cosine")
    flags = ["--out", str(folder), "--resume", "--schedule", "cosine", "--epochs", "2"]
    refused(flags, "trained with --epochs 1, not 2", capsys)


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
    assert "has no checkpoint yet: its run begins anew" in capsys.readouterr().out
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
    refused(flags, r"pixels in \[-.*Bernoulli.*leave out the normalisation, or use --preset gaussian", capsys)
    assert main([*flags, "--preset", "gaussian"]) == 0


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
