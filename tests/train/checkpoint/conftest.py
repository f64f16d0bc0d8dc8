"""A finished run, which tests spoil in copies."""

import shutil
from pathlib import Path

import pytest

from .refusal import ONE


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A finished run, to copy."""
    from fastvae.train.cli import main  # noqa: PLC0415

    path = tmp_path_factory.mktemp("runs") / "run"
    flags = ["--device", "cpu", "--no-autotune", "--precision", "fp32"]
    assert main([*ONE, *flags, "--out", str(path)]) == 0
    return path


@pytest.fixture
def run(kept, tmp_path):
    return Path(shutil.copytree(kept, tmp_path / "run", symlinks=True))
