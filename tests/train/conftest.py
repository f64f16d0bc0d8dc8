"""Small real runs, in this process."""

import json
import subprocess
import sys

import pytest

from fastvae.train.cli import main


@pytest.fixture
def train_and_plot(tmp_path):
    """Run ``fastvae train`` on the digits in this process; returns the exit status and the run's folder."""

    def start(*flags, out="run"):
        folder = tmp_path / out
        precision = () if {"--precision", "--resume"} & set(flags) else ("--precision", "fp32")
        return main(["--out", str(folder), "--device", "cpu", "--no-autotune", *precision, *flags]), folder

    return start


@pytest.fixture
def train(train_and_plot, monkeypatch):
    """The same with an empty loss.png: matplotlib takes longer over it than a run over its epochs."""
    monkeypatch.setattr("fastvae.train.run.write_curves", lambda metrics, path: path.touch() or path)
    return train_and_plot


@pytest.fixture
def metrics():
    """The lines of a run's metrics.jsonl."""
    return lambda folder: [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# As torchrun would, but the modules are imported once, before the processes part: each import takes seconds.
_PARTED = """

import os, sys
import fastvae.train.run
import torch._dynamo
from fastvae.train.distributed.world import open_world

def part(rank, size, port):
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    os.environ.update({name: str(value) for name, value in {**ranks, **place}.items()})
    with open_world("cpu") as world:
        work(world)

size = int(sys.argv[1])
store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
torch.multiprocessing.start_processes(part, (size, store.port), size, start_method="fork")
"""


@pytest.fixture
def in_processes(tmp_path):
    """Run the function ``work(world)`` of a piece of Python in so many processes; all have to succeed."""

    def start(work, size):
        script = tmp_path / "work.py"
        script.write_text(work + _PARTED)
        command = [sys.executable, script, str(size)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr

    return start
