"""Small real runs, in this process."""

import json

import pytest

from fastvae.train.command import main


@pytest.fixture
def train(tmp_path):
    """Run ``fastvae train`` on the digits in this process; returns the exit status and the run's folder."""

    def start(*flags, out="run"):
        folder = tmp_path / out
        precision = () if {"--precision", "--resume"} & set(flags) else ("--precision", "fp32")
        return main(["--out", str(folder), "--device", "cpu", "--no-autotune", *precision, *flags]), folder

    return start


@pytest.fixture
def metrics():
    """The lines of a run's metrics.jsonl."""
    return lambda folder: [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
