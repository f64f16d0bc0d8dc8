"""A sample of `make chaos`, two kills, and that it counts only faults that befell something.

The rest has tests of its own, of what meets it: signals in test_run.py, damaged checkpoints in test_checkpoint.py,
full disks and lost folders in test_disk.py, second runs in test_lock.py, processes killed in test_agents.py.
"""

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

CHAOS = Path(__file__).parent / "chaos"


def tried(file, *flags):
    """How often each fault was tried, all of which have to be survived."""
    command = [sys.executable, CHAOS, *flags, "--json", file]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    faults = json.loads(file.read_text())["faults"]
    assert all(fault["survived"] == fault["tried"] and fault["bytes_lost"] == 0 for fault in faults)
    return [fault["tried"] for fault in faults]


@pytest.mark.xdist_group("spellings")
def test_runs_survive_kills(tmp_path):
    assert tried(tmp_path / "chaos.json", "--kills", "2", "--others", "0", "--three", "0") == [2, *[0] * 8]


@pytest.fixture
def chaos(monkeypatch):
    """The modules of the folder, which are a program's."""
    monkeypatch.syspath_prepend(CHAOS)
    names = ("trial", "faults", "chaos_main")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("chaos_main", CHAOS / "__main__.py")
    main = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, main)
    spec.loader.exec_module(main)
    yield SimpleNamespace(main=main, faults=sys.modules["faults"], trial=sys.modules["trial"])
    for name in names[:2]:
        del sys.modules[name]


class Ended:
    """A run that ended, or was killed, whatever befell it."""

    def __init__(self, status):
        self.status, self.log = status, SimpleNamespace(read_text=lambda: "epoch 25 ")

    def watch(self, *_, **__):
        pass

    def send(self, number):
        pass

    def is_over(self):
        return True

    def children(self):
        return []

    def end(self):
        return self.status


def trial_of(chaos, folder, status):
    trial = chaos.trial.Trial(folder, (), random.Random(0), 1.0)
    trial.start = lambda *_, **__: Ended(status)
    return trial


LATE = ["kill", "kill_in_a_save", "terminate", "interrupt", "flip_a_bit", "truncate", "delete_the_folder"]
LATE += ["start_a_second_run", "kill_one_of_three", "kill_one_of_three_with_restarts"]


@pytest.mark.parametrize("fault", LATE)
def test_a_fault_after_the_end_of_a_run_befell_nothing(fault, tmp_path, chaos, monkeypatch):
    monkeypatch.setattr(chaos.faults, "Run", lambda *_, **__: Ended(0))
    with pytest.raises(chaos.trial.MissedError):
        getattr(chaos.faults, fault)(trial_of(chaos, tmp_path, 0))


@pytest.mark.parametrize("fault", ["kill_in_a_save", "flip_a_bit", "truncate"])
def test_a_kill_before_there_is_what_it_damages_befell_nothing(fault, tmp_path, chaos):
    with pytest.raises(chaos.trial.MissedError):
        getattr(chaos.faults, fault)(trial_of(chaos, tmp_path, 137))


def test_a_fault_is_tried_until_it_befalls_a_run(chaos, monkeypatch):
    taken = []
    monkeypatch.setattr(chaos.main, "survive", lambda trial, *_: taken.append(trial) or trial == 3)
    assert chaos.main.land(range(20), None, {}, None) == 3
    assert taken == [0, 1, 2, 3]
    with pytest.raises(AssertionError, match="the fault befell none of 2 runs"):
        chaos.main.land(range(2), None, {}, None)
