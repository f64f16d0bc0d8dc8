"""`make gpu`: sections that hang, crash or have no time left, their results, and the table for the README."""

import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch
from gpu import driver, loops, ops, outcomes, section, streams, table, tests  # benchmarks/gpu

from fastvae.bench.contenders import entries as racers
from fastvae.bench.contenders.workload import Workload
from fastvae.data import load
from fastvae.models import PRESETS

ROOT = Path(__file__).parents[2]

# Programs of section processes, in place of gpu.section.
PIECES = {
    "right": "keep({'a': 1}, 'all is right')",
    "wrong": "keep({'a': 2}, 'one is wrong', ['this one'])",
    "crash": "keep({'a': 3}, ''); raise ValueError('no such thing')",
    "hang": """keep({'a': 4}, '')
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
pathlib.Path('child').write_text(str(child.pid))
time.sleep(60)""",
    "slow": "import time; time.sleep(0.4); keep({}, 'done')",
}
PREAMBLE = """import json, pathlib
def keep(figures, summary, failures=()):
    content = {'summary': summary, 'failures': list(failures), 'figures': figures}
    pathlib.Path('result.json').write_text(json.dumps(content))
"""


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs pieces as sections, and returns the driver."""
    monkeypatch.setattr(driver, "command", lambda order: [sys.executable, "-c", PREAMBLE + PIECES[order.name]])
    monkeypatch.setattr(driver, "NAMES", tuple(PIECES))

    def start(*planned, seconds=60.0, jobs=2):
        here = driver.Driver(tmp_path / "work", tmp_path / "out.json", tmp_path, None, dry=False, seconds=seconds)
        here.run([driver.Planned(*each) for each in planned], jobs)
        return here

    return start


def is_alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except OSError:
        return False


def test_a_section_that_hangs_is_killed_with_its_children_and_the_next_goes_on(run, tmp_path, capsys):
    here = run(("hang", 1.5, True), ("right", 20, True))
    assert [result["status"] for result in here.results.values()] == ["stopped", "passed"]
    assert here.results["hang"]["figures"] == {"a": 4}  # what it had
    assert 1.4 < here.results["hang"]["seconds"] < 10
    deadline = time.monotonic() + 5
    while is_alive((tmp_path / "work" / "hang" / "child").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive((tmp_path / "work" / "hang" / "child").read_text())
    assert not here.passed
    assert "hang         stopped " in capsys.readouterr().out
    assert list(json.loads((tmp_path / "out.json").read_text())["sections"]) == ["right", "hang"]  # in their order


def test_what_failed_and_what_crashed_is_told(run):
    here = run(("wrong", 20, False), ("crash", 20, False), ("right", 20, False))
    assert {name: result["status"] for name, result in here.results.items()} == {
        "wrong": "failed",
        "crash": "crashed",
        "right": "passed",
    }
    assert here.results["crash"]["summary"] == "ValueError: no such thing"
    assert here.results["crash"]["figures"] == {"a": 3}
    lines = list(driver.table(here.results))
    assert any(line.strip() == "- this one" for line in lines)
    assert not here.passed


def test_what_finds_no_time_is_not_run(run):
    here = run(("slow", 20, True), ("right", 20, True), seconds=5.3)
    assert {name: result["status"] for name, result in here.results.items()} == {"slow": "passed", "right": "not run"}
    assert not here.passed


def test_what_is_timed_runs_alone(run, monkeypatch):
    seen = []
    kept = driver.Driver._start

    def start(self, planned):
        seen.append((planned.name, len(self._running)))
        kept(self, planned)

    monkeypatch.setattr(driver.Driver, "_start", start)
    assert run(("slow", 20, False), ("right", 20, False), ("wrong", 20, True), ("crash", 20, True)).results
    assert dict(seen)["right"] == 1  # beside the slow one
    assert dict(seen)["wrong"] == dict(seen)["crash"] == 0


def test_every_section_has_a_module_and_together_they_fit():
    assert driver.NAMES[0] == "environment"
    for planned in driver.SECTIONS:
        assert (ROOT / "benchmarks" / "gpu" / f"{planned.name}.py").exists()
    assert len(set(driver.NAMES)) == len(driver.NAMES)


def test_a_dry_run_hides_the_gpu_and_a_section_finds_its_order(tmp_path):
    order = section.Order("streams", str(tmp_path), dry=True, data_dir="/mnist", limit=100)
    assert section.Order(**json.loads(section.command(order)[-1])) == order
    here = section.Section(order)
    assert (here.device.type, here.data) == ("cpu", "digits")
    for number in range(40):
        here.fail(f"failure\n{number}")
    here.finish("summary")
    found = json.loads((tmp_path / section.RESULT).read_text())
    assert found["failures"][:1] == ["failure 0"]
    assert found["failures"][-1] == "and 10 more"
    assert len(found["failures"]) == 31


def test_calls_with_other_bits_are_counted():
    results = iter([(torch.ones(2),), (torch.ones(2),), (torch.tensor([1.0, 1.0000001]),), (torch.ones(2),)])
    assert streams.other_bits(torch.device("cpu"), 3, lambda: next(results)) == 1


def test_the_end_of_each_test_is_kept_as_it_comes(tmp_path, monkeypatch):
    (tmp_path / "test_some.py").write_text(
        "import os, pytest\n"
        "def test_right(): pass\n"
        "def test_wrong(): assert 1 == 2\n"
        "@pytest.mark.skip\ndef test_left_out(): pass\n"
        "def test_killed(): os._exit(1)\n"
    )
    file = tmp_path / "outcomes.jsonl"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = {**outside, "FASTVAE_OUTCOMES": str(file), "PYTHONPATH": str(ROOT / "benchmarks")}
    command = [sys.executable, "-m", "pytest", "-p", "gpu.outcomes", "-p", "no:cacheprovider", "test_some.py"]
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    found = {name.partition("::")[2]: test["outcome"] for name, test in outcomes.read(file).items()}
    assert found == {
        "test_right": "passed",
        "test_wrong": "failed",
        "test_left_out": "skipped",
        "test_killed": "started",
    }
    assert any("1 == 2" in test.get("why", "") for test in outcomes.read(file).values())


def test_the_tests_of_a_gpu_exist():
    for cores in (2, 16):
        for group in tests.groups(cores):
            assert group.workers >= 1
            assert all((ROOT / word).exists() for word in group.arguments if word.startswith("tests"))
    assert sum(group.workers for group in tests.groups(16)) == 16


def test_all_loops_that_race_on_a_gpu_are_contenders(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    digits = load("digits")
    workload = Workload("leaky", PRESETS["leaky"], digits, 100, torch.device("cuda"), 100)
    entries = racers.contenders(workload)
    (chosen,) = racers.select(loops.CONTENDERS, entries)
    kinds = {entry.kind for entry in chosen}
    assert kinds == {"tutorial", "torch", "fastvae", "floor"}
    assert not any("max-autotune" in entry.name for entry in chosen)


def test_the_large_operations_come_first_and_all_cells_have_their_contenders():
    cells = list(ops.cells())
    sizes = [cell.operation.bytes(cell.shape, cell.dtype) for cell in cells]
    first_small = next(at for at, size in enumerate(sizes) if size < 5e8)
    assert max(sizes) > 1e9
    assert {cell.operation.name for cell in cells[:first_small]} == {each.name for each in ops.OPERATIONS}
    for cell in cells:
        names = cell.operation.contenders()
        assert "fastvae" in names
        assert not cell.compiled or "torch.compile" in names


def test_a_contender_that_cannot_be_captured_is_no_failure(monkeypatch):
    times = {"fastvae": 2e-6, "eager": 5e-6}

    def device_seconds(name, sets):
        if name == "torch.compile":
            raise RuntimeError("it waits\nfor much")
        return times[name]

    monkeypatch.setattr(ops.timing, "device_seconds", lambda calls, sets: device_seconds(calls.name, sets))
    monkeypatch.setattr(ops.timing, "wall_seconds", lambda calls, sets: 1e-5)
    monkeypatch.setattr(ops.timing, "copy_seconds", lambda moved, device: 1e-6)
    operation = types.SimpleNamespace(
        name="x",
        bytes=lambda shape, dtype: 2_000_000_000,
        contenders=lambda: dict.fromkeys(("fastvae", "eager", "torch.compile", "torch.compile, max-autotune")),
        calls=lambda name, *_: types.SimpleNamespace(name=name, rotate=lambda: 1),
    )
    row = ops.measured(ops.Cell(operation, (1, 1), torch.float32, compiled=True), torch.device("cpu"), None)
    assert row["us"] == {"fastvae": 2.0, "eager": 5.0}
    assert row["not_captured"] == {"torch.compile": "it waits"}
    assert (row["of_a_copy"], row["to_torch"]) == (0.5, 2.5)


def test_the_table_leaves_out_what_is_not_there(tmp_path):
    content = {
        "device": "NVIDIA H200",
        "versions": {"torch": "2.11.0", "triton": "3.6.0", "CUDA": "13.0"},
        "sections": {
            "classic": {"status": "passed", "figures": {"runs": {"fp32": {"loss": 105.4}, "bf16": {"loss": 105.31}}}},
            "streams": {"status": "stopped", "figures": {}},
        },
    }
    (tmp_path / "gpu.json").write_text(json.dumps(content))
    lines = list(table.table([tmp_path / "gpu.json"] * 2))
    assert lines[0] == "| | NVIDIA H200 | NVIDIA H200 |"
    assert "| sections of `make gpu` that passed | 1 of 2 (not streams) | 1 of 2 (not streams) |" in lines
    assert any(line.endswith("| fp32 105.40, bf16 105.31 | fp32 105.40, bf16 105.31 |") for line in lines)
    assert {line.count("|") for line in lines} == {4}


@pytest.mark.slow
def test_a_dry_run_ends_in_a_file_and_its_table(tmp_path):
    """All sections dry are CI's (`make gpu ARGS=--dry`); two of them show that the command itself goes through."""
    out = tmp_path / "gpu-dry.json"
    flags = ["--dry", "--only", "streams", "ops", "--out", out, "--work", tmp_path / "work"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu", *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(json.loads(out.read_text())["sections"]) == ["environment", "streams", "ops"]
    printed = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu" / "table.py", out], capture_output=True, text=True, check=True
    )
    assert "| calls on two streams with the same bits | 64 of 64 |" in printed.stdout
