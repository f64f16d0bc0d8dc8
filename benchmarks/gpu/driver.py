"""The driver of ``make gpu``: runs sections, each a process with a time limit, and collects their results in a file."""

import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .section import LOG, RESULT, ROOT, Order, command

BENCHMARKS = ROOT / "benchmarks"
LEAST = 5.0  # seconds; with less time left, no section starts
DRY_FACTOR = 4  # on the limits of a dry run, which may share two cores with other work


class Planned(NamedTuple):
    """A section and its limit in seconds. ``alone`` is True if nothing may run beside it, because it measures times."""

    name: str
    limit: float
    alone: bool


# First come the sections that test correctness, several at once; then those that measure times, one by one.
SECTIONS = (
    Planned("environment", 45, alone=True),
    Planned("tests", 150, alone=False),
    Planned("accuracy", 90, alone=False),
    Planned("streams", 60, alone=False),
    Planned("nccl", 60, alone=False),
    Planned("resume", 90, alone=False),
    Planned("parity", 120, alone=False),
    Planned("steps", 90, alone=True),
    Planned("classic", 50, alone=True),
    Planned("leaky", 60, alone=True),
    Planned("ops", 75, alone=True),
    Planned("loops", 150, alone=True),
)
NAMES = tuple(planned.name for planned in SECTIONS)


class Running(NamedTuple):
    """A running section. ``started`` and ``ends`` are on the monotonic clock."""

    planned: Planned
    process: "subprocess.Popen[bytes]"
    folder: Path
    started: float
    ends: float


class Driver:
    """Runs sections and keeps their results.

    Args:
        work: folder for logs and runs; it is emptied first.
        out: file to write; None means a file in ``results`` that is named after the device.
        seconds: time limit for all sections together. Sections without any time left are not run.
    """

    def __init__(
        self, work: Path, out: Path | None, results: Path, data_dir: Path | None, *, dry: bool, seconds: float
    ) -> None:
        self._work = work.resolve()
        self._out = out
        self._results_folder = results
        self._dry = dry
        self._data_dir = None if data_dir is None else str(data_dir.resolve())
        self._started = time.monotonic()
        self._end = self._started + seconds
        self.results: dict[str, dict[str, Any]] = {}
        self._running: list[Running] = []

    def run(self, sections: Sequence[Planned], jobs: int) -> None:
        """Run the sections in order; up to ``jobs`` at once, if they need not be alone."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        waiting = list(sections)
        try:
            while waiting or self._running:
                while waiting and self._may_start(waiting[0], jobs):
                    self._start(waiting.pop(0))
                time.sleep(0.05)
                for running in list(self._running):
                    self._look_at(running)
        finally:  # also on Ctrl-C and SIGTERM
            for running in self._running:
                _kill(running)

    def _may_start(self, planned: Planned, jobs: int) -> bool:
        if planned.alone or any(running.planned.alone for running in self._running):
            return not self._running
        return len(self._running) < jobs

    def _start(self, planned: Planned) -> None:
        now = time.monotonic()
        limit = min(planned.limit * (DRY_FACTOR if self._dry else 1), self._end - now)
        if self._end - now < LEAST:
            self._keep(planned.name, {"status": "not run", "seconds": 0.0, "summary": "no time was left"})
            return
        folder = self._work / planned.name
        folder.mkdir()
        order = Order(planned.name, str(folder), self._dry, self._data_dir, limit)
        # A fresh cache, so that start-up times include autotuning and compilation.
        path = os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(self._work / "cache")}
        environment["OMP_WAIT_POLICY"] = "passive"  # sections that run at once must not spin
        if self._dry:
            environment["CUDA_VISIBLE_DEVICES"] = ""  # a dry run is the same everywhere
        with (folder / LOG).open("w") as log:
            process = subprocess.Popen(
                command(order),
                cwd=folder,  # not the repository, whose folder fastvae would hide the installed one
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # makes a process group, which can be killed as a whole
            )
        self._running.append(Running(planned, process, folder, now, now + limit))

    def _look_at(self, running: Running) -> None:
        over = time.monotonic() > running.ends
        if running.process.poll() is None and not over:
            return
        _kill(running)  # also processes that the section left behind
        self._running.remove(running)
        seconds = time.monotonic() - running.started
        self._keep(running.planned.name, _result(running, over=over, seconds=seconds))

    def _keep(self, name: str, result: dict[str, Any]) -> None:
        self.results[name] = result
        print(line(name, result), flush=True)
        self.write()

    @property
    def path(self) -> Path:
        """The file of the results."""
        if self._out is not None:
            return self._out
        device = self.results.get("environment", {}).get("figures", {}).get("device", "unknown")
        name = "dry" if self._dry else re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
        return self._results_folder / f"gpu-{name}.json"

    def write(self) -> None:
        """Write all results so far, in the order of the sections."""
        environment = self.results.get("environment", {}).get("figures", {})
        content = {
            **{key: environment.get(key) for key in ("device", "versions", "commit")},
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "dry": self._dry,
            "data": "digits" if self._dry or self._data_dir is None else "mnist",
            "seconds": round(time.monotonic() - self._started, 1),
            "sections": {name: self.results[name] for name in NAMES if name in self.results},
        }
        self.path.write_text(json.dumps(content, indent=1) + "\n")

    @property
    def passed(self) -> bool:
        return all(result["status"] == "passed" for result in self.results.values())


def _kill(running: Running) -> None:
    with contextlib.suppress(ProcessLookupError):  # all have ended
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()


def _result(running: Running, *, over: bool, seconds: float) -> dict[str, Any]:
    """Return the results of a section that ended or was stopped."""
    file = running.folder / RESULT
    found = json.loads(file.read_text()) if file.exists() else {"summary": "", "failures": [], "figures": {}}
    log = (running.folder / LOG).read_text(errors="replace").strip().splitlines()
    if over:
        status = "stopped"
        told = f"at its limit of {running.ends - running.started:.0f} s"
    elif running.process.returncode != 0:
        status = "crashed"
        told = log[-1][:300] if log else f"with status {running.process.returncode}, silently"
    else:
        status = "failed" if found["failures"] else "passed"
        told = found["summary"]
    result = {"status": status, "seconds": round(seconds, 1), "summary": told}
    if found["failures"]:
        result["failures"] = found["failures"]
    if status in ("stopped", "crashed"):
        result["log"] = [text[:300] for text in log[-15:]]
    return result | {"figures": found["figures"]}


def line(name: str, result: dict[str, Any]) -> str:
    """Format the result of a section as a line of the log and of the table."""
    return f"{name:<12} {result['status']:<8} {result['seconds']:6.1f} s  {result['summary']}"


def table(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the closing table: a row for each section in order, and its failures below it."""
    yield f"{'section':<12} {'status':<8} {'time':>8}  what was found"
    for name in NAMES:
        if name in results:
            yield line(name, results[name])
            yield from (f"{'':<12} - {failure}" for failure in results[name].get("failures", []))


def interrupted(*_: object) -> None:
    """Exit on SIGTERM as on Ctrl-C: sections are killed, and the file of results stays."""
    sys.exit(128 + signal.SIGTERM)
