"""All four ways to start two processes, for real: the same curve as one process.

A start costs 25 CPU seconds, most of them imports: two of the spellings end as asked for, and two by Ctrl-C.
"""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastvae.train.checkpoint import checkpoint
from fastvae.train.cli import main

BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spellings")]
SPELLINGS = {
    "torchrun, literally": [BIN / "torchrun", "-m", "fastvae.train", "--nproc", "2"],
    "torchrun": [BIN / "torchrun", "--nproc-per-node", "2", "-m", "fastvae.train"],
    "python -m": [sys.executable, "-m", "fastvae.train", "--nproc", "2"],
    "fastvae train": [BIN / "fastvae", "train", "--nproc", "2"],
}
FLAGS = ["--epochs", "1", "--no-autotune", "--precision", "fp64", "--device", "cpu", "--batch-size", "99"]
# 1,497 digits in batches of 99 rows: neither the batch nor the last one of 12 rows divides like a power of two.
STEPS = 16  # an epoch
ALL = ["--accumulate", "3", "--clip-norm", "300", "--ema", "0.9", "--schedule", "cosine", "--warmup-steps", "3"]
ALL += ["--beta-schedule", "warmup", "--beta-steps", "9", "--epochs", "9", "--max-steps", "41", "--patience", "2"]
ALL += ["--binarize"]


def start(command, folder, *more):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["XDG_CACHE_HOME"] = str(folder.parent)
    arguments = [*map(str, command), *FLAGS, *more, "--out", str(folder)]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("test loss (negative ELBO)") == 1
    assert json.loads((folder / "config.json").read_text())["world_size"] == 2
    return done.stdout


def curve(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_curve(lines, alone):
    assert [line["split"] for line in lines] == [line["split"] for line in alone]
    for line, single in zip(lines, alone, strict=True):
        for term in ("loss", "nll", "kl"):
            assert line[term] == pytest.approx(single[term], rel=1e-9, abs=0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The curve of one process, which is this one, by what is added to FLAGS."""

    @functools.cache
    def run(*more):
        folder = tmp_path_factory.mktemp("alone") / "run"
        assert main([*FLAGS, *more, "--out", str(folder)]) == 0
        return curve(folder)

    return run


def test_two_processes_train_the_same_curve_with_all_that_a_step_may_have(tmp_path, alone):
    output = start(SPELLINGS["python -m"], tmp_path / "run", *ALL, "--autotune")  # two that choose alike, too
    assert "by trial" in output or "without a trial" in output  # by whether the run takes 4 s here
    assert "ended by --max-steps at step 41, in epoch 3" in output
    assert_same_curve(curve(tmp_path / "run"), alone(*ALL))


def test_two_processes_train_the_same_curve_and_agree_on_when_their_time_is_over(tmp_path, alone):
    # An epoch is some 50 ms.
    output = start(SPELLINGS["torchrun"], tmp_path / "run", "--epochs", "100000", "--time-budget", "2")
    assert "ended by --time-budget at step" in output
    assert_same_curve(curve(tmp_path / "run")[:2], alone())


@pytest.mark.parametrize("spelling", ["torchrun, literally", "fastvae train"])
def test_ctrl_c_saves_for_all_and_one_process_goes_on_with_the_same_curve(spelling, tmp_path, alone):
    folder = tmp_path / "run"
    flags = [*FLAGS, "--epochs", "100000", "--out", str(folder)]
    with subprocess.Popen(
        [*map(str, SPELLINGS[spelling]), *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (folder / "metrics.jsonl").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        assert json.loads((folder / "config.json").read_text())["world_size"] == 2
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert "nothing is lost" in output, errors
    if spelling == "fastvae train":  # torchrun has an exit status and a traceback of its own
        assert process.returncode == 128 + signal.SIGINT
        assert "Traceback" not in errors
    step = int(checkpoint.newest(folder / "checkpoints")[0].stem.partition("-")[2])
    epochs = step // STEPS + 1
    assert main([*FLAGS, "--resume", "--out", str(folder), "--epochs", str(epochs)]) == 0
    lines = curve(folder)
    assert [line["epoch"] for line in lines if line["split"] == "test"] == list(range(1, epochs + 1))
    assert_same_curve(lines[:2], alone())


@pytest.mark.parametrize("first", ["fsdp", "ddp"])
def test_parts_of_weights_and_whole_weights_read_each_others_checkpoints(first, tmp_path, alone):
    folder = tmp_path / "run"
    half = ["--max-steps", "20", "--checkpoint-every", "7"]
    flags = [*FLAGS, "--epochs", "2", "--out", str(folder)]
    cut = ["--parallel", "fsdp", "--execution", "eager"]
    if first == "fsdp":
        start(SPELLINGS["python -m"], folder, "--epochs", "2", *half, *cut)
        assert main([*flags, "--resume"]) == 0
    else:
        assert main([*flags, *half]) == 0
        start(SPELLINGS["python -m"], folder, "--epochs", "2", "--resume", *cut)
    assert_same_curve(curve(folder), alone("--epochs", "2"))
