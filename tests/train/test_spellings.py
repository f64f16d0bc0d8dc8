"""All four ways to start two processes, for real: the same curve as one process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastvae.train import checkpoint

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.slow
SPELLINGS = {
    "torchrun, literally": [BIN / "torchrun", "-m", "fastvae.train", "--nproc", "2"],
    "torchrun": [BIN / "torchrun", "--nproc-per-node", "2", "-m", "fastvae.train"],
    "python -m": [sys.executable, "-m", "fastvae.train", "--nproc", "2"],
    "fastvae train": [BIN / "fastvae", "train", "--nproc", "2"],
}
FLAGS = ["--epochs", "1", "--no-autotune", "--precision", "fp64", "--device", "cpu", "--batch-size", "99"]


def start(command, folder, *more):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    arguments = [*map(str, command), *FLAGS, *more, "--out", str(folder)]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return json.loads((folder / "config.json").read_text())["world_size"], lines, done.stdout


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return start([sys.executable, "-m", "fastvae.train"], tmp_path_factory.mktemp("alone") / "run")[1]


@pytest.mark.xdist_group("spellings")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_two_processes_train_the_same_curve(spelling, tmp_path, alone):
    # 1,497 digits in batches of 99 rows: neither the batch nor the last one of 12 rows divides like a power of two.
    world_size, lines, output = start(SPELLINGS[spelling], tmp_path / "run")
    assert world_size == 2
    assert output.count("test loss (negative ELBO)") == 1
    assert [line["split"] for line in lines] == ["train", "test"]
    for line, single in zip(lines, alone, strict=True):
        for term in ("loss", "nll", "kl"):
            assert line[term] == pytest.approx(single[term], rel=1e-9, abs=0)


@pytest.mark.xdist_group("spellings")
def test_two_processes_train_the_same_curve_with_all_that_a_step_may_have(tmp_path):
    more = ["--accumulate", "3", "--clip-norm", "300", "--ema", "0.9", "--schedule", "cosine", "--warmup-steps", "3"]
    more += ["--beta-schedule", "warmup", "--beta-steps", "9", "--epochs", "9", "--max-steps", "41", "--patience", "2"]
    more += ["--binarize"]
    curves = []
    for name, command in {"one": [sys.executable, "-m", "fastvae.train"], "two": SPELLINGS["python -m"]}.items():
        _, lines, output = start(command, tmp_path / name, *more)
        assert "ended by --max-steps at step 41, in epoch 3" in output
        curves.append([line[term] for line in lines for term in ("loss", "nll", "kl")])
    assert curves[0] == pytest.approx(curves[1], rel=1e-9, abs=0)


@pytest.mark.xdist_group("spellings")
def test_two_processes_agree_on_when_their_time_is_over(tmp_path):
    _, _, output = start(SPELLINGS["python -m"], tmp_path / "run", "--epochs", "100000", "--time-budget", "1")
    assert "ended by --time-budget at step" in output


@pytest.mark.xdist_group("spellings")
@pytest.mark.parametrize("spelling", ["torchrun, literally", "fastvae train"])
def test_ctrl_c_saves_for_all_and_one_process_goes_on(spelling, tmp_path):
    folder = tmp_path / "run"
    flags = ["--epochs", "100000", "--device", "cpu", "--out", str(folder)]
    with subprocess.Popen(
        [*map(str, SPELLINGS[spelling]), *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (folder / "metrics.jsonl").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert "nothing is lost" in output, errors
    if spelling == "fastvae train":  # torchrun has an exit status and a traceback of its own
        assert process.returncode == 128 + signal.SIGINT
        assert "Traceback" not in errors
    step = int(checkpoint.newest(folder / "checkpoints")[0].stem.partition("-")[2])
    done = step // 12  # steps in an epoch of digits
    command = [sys.executable, "-m", "fastvae.train", "--resume", "--out", str(folder), "--epochs", str(done + 1)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["split"] == "test"] == list(range(1, done + 2))
