"""All four ways to start two processes, for real: the same curve as one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SPELLINGS = {
    "torchrun, literally": [BIN / "torchrun", "-m", "fastvae.train", "--nproc", "2"],
    "torchrun": [BIN / "torchrun", "--nproc-per-node", "2", "-m", "fastvae.train"],
    "python -m": [sys.executable, "-m", "fastvae.train", "--nproc", "2"],
    "fastvae train": [BIN / "fastvae", "train", "--nproc", "2"],
}
FLAGS = ["--epochs", "1", "--precision", "fp64", "--device", "cpu", "--batch-size", "99"]


def start(command, folder):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    arguments = [*map(str, command), *FLAGS, "--out", str(folder)]
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
