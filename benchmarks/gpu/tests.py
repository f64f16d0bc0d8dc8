"""The tests that cover more on a GPU: compiled operators, replays, loaders, and those marked gpu."""

import sys
import time
from collections import Counter
from typing import NamedTuple

from fastvae.utils.machine import cores

from . import outcomes
from .section import ROOT, Command, Done, Section


class Group(NamedTuple):
    """Tests for one pytest process. ``dry`` are more arguments for a dry run, which select a few tests."""

    name: str
    workers: int
    arguments: tuple[str, ...]
    dry: tuple[str, ...]


REPLAYS = (
    "tests/train/graphs/test_step_graphs.py",
    "tests/train/graphs/test_replay.py",
    "tests/train/report/test_async_scalars.py",
)
LOADERS = (
    "tests/data/loaders/test_resident.py",
    "tests/data/loaders/test_prefetch.py",
    "tests/data/loaders/test_shuffle.py",
)
ON_A_GPU = "triton or captured"  # selects operators' tests by name


def groups(count: int) -> list[Group]:
    """Return the groups that run at once on ``count`` cores. Most cores go to the operators, which compile kernels."""
    few = 3 if count > 8 else 1
    ops = ("tests/ops", "-m", "not slow", "-k", ON_A_GPU)
    return [
        Group("ops", max(1, count - 7), ops, ("-k", f"({ON_A_GPU}) and one_output_may_go_unused")),
        Group("replays", few, (*REPLAYS, *LOADERS, "-m", "not slow"), ("-k", "stand_in or documented")),
        Group("gpu", few, ("tests/test_gpu.py", "-m", "gpu"), ("-m", "not gpu and not slow", "-k", "two_epochs")),
        Group("huge", 1, ("tests/ops/test_huge.py",), ("--collect-only",)),
    ]


def run(section: Section) -> str:
    running = {group.name: start(section, group) for group in groups(cores())}
    told: dict[str, int] = {}
    while running:
        time.sleep(0.5)
        for name, command in list(running.items()):
            if command.process.poll() is not None:
                check(section, name, running.pop(name).wait())
        found = {name: test for file in section.folder.glob("*.jsonl") for name, test in outcomes.read(file).items()}
        told = Counter(test["outcome"] for test in found.values())
        begun = [name for name, test in found.items() if test["outcome"] == "started"]
        # If pytest is killed, these were running, among them any test that hung.
        section.keep(outcomes=told, unfinished=begun[:20])
        section.failures = [failure for failure in section.failures if failure.startswith("pytest ")]
        for name, test in found.items():
            if test["outcome"] == "failed":
                section.fail(f"{name}: {test['why']}")
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(told.items()))


def start(section: Section, group: Group) -> Command:
    # Not run from the repository's root, whose folder fastvae would hide the installed one.
    arguments = [str(ROOT / word) if word.startswith("tests/") else word for word in group.arguments]
    command = [sys.executable, "-m", "pytest", *arguments, *(group.dry if section.dry else ())]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "gpu.outcomes"]
    command += ["-q", "--tb=line", "-p", "no:cacheprovider"]
    # The versions here are not those that CI pins, so their warnings are not failures.
    command += ["-o", "filterwarnings=default"]
    if group.workers > 1:
        command += ["-n", str(group.workers), "--dist", "loadgroup"]
    outcome_file = section.folder / f"{group.name}.jsonl"
    # Each worker compiles by itself: a pool of processes per worker would fight for the cores.
    return section.start(group.name, command, FASTVAE_OUTCOMES=str(outcome_file), TORCHINDUCTOR_COMPILE_THREADS="1")


def check(section: Section, name: str, done: Done) -> None:
    """Fail if pytest ended for another reason than a failed test, such as finding no tests."""
    if done.status not in (0, 1):
        section.fail(f"pytest {name}: status {done.status}: {done.last_line}")
