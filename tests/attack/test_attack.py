"""A sample of `make attack`: its quick cases, and 200 mutations of each format."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ATTACK = Path(__file__).parent


@pytest.mark.xdist_group("attack")
def test_nothing_from_a_stranger_does_harm(tmp_path):
    file = tmp_path / "result.json"
    command = [sys.executable, ATTACK, "--quick", "--result", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = [verdict["verdict"] for verdict in json.loads(file.read_text())]
    assert verdicts.count("ok") >= 40, verdicts
