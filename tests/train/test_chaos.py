"""A sample of `make chaos`: every fault once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parent / "chaos"


@pytest.mark.slow
@pytest.mark.xdist_group("spellings")
def test_runs_survive(tmp_path):
    flags = ["--kills", "3", "--others", "1", "--three", "1", "--json", str(tmp_path / "chaos.json")]
    done = subprocess.run([sys.executable, CHAOS, *flags], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    faults = json.loads((tmp_path / "chaos.json").read_text())["faults"]
    assert [fault["tried"] for fault in faults] == [3, *[1] * 10]
    assert all(fault["survived"] == fault["tried"] and fault["bytes_lost"] == 0 for fault in faults)
