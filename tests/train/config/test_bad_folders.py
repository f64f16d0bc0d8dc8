"""Bad folders: of a run to write, or of one to resume."""

import fcntl
import re

import pytest

from fastvae.train.cli import main

from .refusal import assert_refused, of_run, text


def each_checkpoint(change):
    def prepare(run):
        for path in (run / "checkpoints").glob("step-*"):
            change(path)

    return of_run(prepare)


def hold(run):
    held.append((run / "lock").open("a"))
    held[-1].truncate(0)
    held[-1].write("process 7 on elsewhere")
    held[-1].flush()
    fcntl.flock(held[-1], fcntl.LOCK_EX)


held = []
GO_ON = ["--out", "run", "--resume"]
BAD = {
    "out is a file": (text("run", ""), ["--out", "run"], r"cannot write to run \(.*\): choose another --out"),
    "out is below a file": (text("run", ""), ["--out", "run/a"], r"cannot write to run/a \(.*\): choose another --out"),
    "out holds a run": (
        of_run(),
        ["--out", "run"],
        r"run already holds a run: add --resume .* or choose",
    ),
    "out is in use": (of_run(hold), GO_ON, r"run is in use by process 7 on elsewhere: wait for its end, or choose"),
    "no run": (text("run/notes", ""), GO_ON, r"run holds no run \(no config.json in it\): name the folder of one"),
    "no folder": (lambda folder: None, GO_ON, r"run holds no run"),
    "config is cut off": (text("run/config.json", "{"), GO_ON, r"cannot be read as a run's settings \(.*\): name"),
    "config is a list": (
        text("run/config.json", "[1]"),
        GO_ON,
        r"config.json is not what fastvae writes \(list is not a dict\)",
    ),
    "config is binary": (text("run/config.json", b"\xff\xfe"), GO_ON, r"cannot be read as a run's settings"),
    "another preset": (
        of_run(),
        [*GO_ON, "--preset", "deep"],
        r"with --preset classic and cannot go on with deep, as its weights are those of that network: leave it out",
    ),
    "another average": (
        of_run(),
        [*GO_ON, "--ema", "0.9"],
        r"trained with --ema None and cannot go on with 0.9, as its average is of all steps so far: leave it out, or",
    ),
    "empty checkpoints": (
        each_checkpoint(lambda path: path.write_bytes(b"")),
        GO_ON,
        r"no checkpoint to go on from in run/checkpoints \(none of 1 is whole; .*: start a new run with another",
    ),
    "a checkpoint cut off": (
        each_checkpoint(lambda path: path.write_bytes(path.read_bytes()[:-1])),
        GO_ON,
        r"no checkpoint to go on from .* is not a readable checkpoint",
    ),
    "a flipped bit": (
        each_checkpoint(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!")),
        GO_ON,
        r"no checkpoint to go on from .* does not match its checksum, so it was damaged",
    ),
    "a pickle": (
        each_checkpoint(lambda path: path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")),
        GO_ON,
        r"not a readable",
    ),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder beside which tests may stand, with a finished run in it."""
    place = tmp_path_factory.mktemp("bad")
    assert main(["--epochs", "1", "--no-autotune", "--precision", "fp32", "--out", str(place / "finished")]) == 0
    return place


@pytest.mark.parametrize("case", BAD)
def test_bad_folders(case, finished, monkeypatch, capsys):
    prepare, flags, message = BAD[case]
    folder = finished / re.sub(r"\W", "-", case)
    folder.mkdir()
    prepare(folder)
    monkeypatch.chdir(folder)
    try:
        assert_refused(folder, flags, message, capsys)
    finally:
        while held:
            held.pop().close()
