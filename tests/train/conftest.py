"""Small real runs, in this process."""

import json
import subprocess
import sys

import pytest

from fastvae.train.command import main


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


_LAUNCHED = """
import sys
from fastvae.train.launch import launch
from fastvae.train.world import open_world

def main():
    with open_world("cpu") as world:
        work(world)
    return 0

if __name__ == "__main__":
    sys.exit(launch({size}, sys.argv[1:], main, module="work"))
"""


@pytest.fixture
def in_processes(tmp_path, monkeypatch):
    """Run the function ``work(world)`` of a piece of Python in so many processes of a launch; all have to succeed."""

    def start(work, size):
        (tmp_path / "work.py").write_text(work + _LAUNCHED.format(size=size))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        done = subprocess.run([sys.executable, "-m", "work"], capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr

    return start
