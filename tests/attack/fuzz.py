"""Fuzzers: processes of this suite read mutated files under a watchdog.

A reader may succeed, or raise an InputError of one printable line. Anything else is reported with the number of the
mutation, by which it can be reproduced: --only FUZ-npy --seed 0 --number 123.
"""

import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from case import VERDICTS
from readers import FORMATS, Format
from watch import MEMORY, children, end_with_parent, resident

from fastvae.utils.errors import InputError

_CHUNK = 2500  # mutations per process
_PATIENCE = 5.0  # seconds per mutation
_STATE = struct.Struct("qd")  # the number of the current mutation, and its start time
_TOLD = 3  # kinds of failures that are listed


@dataclass
class Tally:
    """Results of one format: the failures by verdict and kind, and the first mutation of each."""

    format: str
    read: int = 0
    seconds: float = 0.0
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def what(self) -> str:
        return f"{self.read:,} mutations of {FORMATS[self.format].what}"

    def add(self, verdict: str, kind: str, number: int) -> None:
        self.failures[verdict, kind] += 1
        self.first.setdefault((verdict, kind), number)

    def verdict(self) -> tuple[str, str]:
        if FORMATS[self.format].is_missing:
            return f"skipped: {FORMATS[self.format].needs} is not installed", ""
        if not self.failures:
            return "ok", ""
        worst = min((verdict for verdict, _ in self.failures), key=VERDICTS.index)
        kinds = [
            f"{count} {verdict}, {kind} (number {self.first[verdict, kind]})"
            for (verdict, kind), count in self.failures.most_common(_TOLD)
        ]
        return worst, f"{self.failures.total()} failures: {'; '.join(kinds)}"


class _Worker:
    """A process that reads a range of mutations of one format."""

    def __init__(self, name: str, numbers: range, seed: int, folder: Path) -> None:
        self.name = name
        self.numbers = numbers
        self.folder = folder
        self._state = mmap.mmap(-1, _STATE.size)
        self._note(numbers.start)
        self.began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            end_with_parent()
            status = 1
            try:
                self._work(FORMATS[name], seed)
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)

    def now(self) -> tuple[int, float]:
        number, since = _STATE.unpack(self._state[:])
        return number, time.monotonic() - since

    def _note(self, number: int) -> None:
        self._state[:] = _STATE.pack(number, time.monotonic())

    def _work(self, form: Format, seed: int) -> None:
        self.folder.mkdir()
        os.chdir(self.folder)
        os.environ.update(FASTVAE_DATA=str(self.folder), TMPDIR=str(self.folder), HF_HUB_OFFLINE="1")
        with open("failures", "a", encoding="utf-8") as failures, open("terminal", "wb") as terminal:
            for number in (1, 2):
                os.dup2(terminal.fileno(), number)
            whole = form.make(self.folder)
            names = list(whole)
            contents = list(whole.values())
            for name in names:
                Path(name).write_bytes(whole[name])
                form.read(name)  # raises if the suite itself is wrong
            written = terminal.tell()
            warned: list[str] = []
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", "Image size")  # as fastvae does, which has a limit of its own
            warnings.showwarning = lambda message, *_, **__: warned.append(str(message))
            for number in self.numbers:
                self._note(number)
                dice = random.Random(f"{seed}/{self.name}/{number}")
                name = dice.choice(names)
                Path(name).write_bytes(form.mutate(dice, whole[name], contents))
                found = _outcome(form, name, warned)
                if (size := os.fstat(terminal.fileno()).st_size) > written:
                    found = found or ("silent", "something was written to the terminal")
                    written = size
                if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 > MEMORY:
                    found = "memory", f"over {MEMORY / 2**30:.1f} GiB"
                if found:
                    failures.write(json.dumps([*found, number]) + "\n")
                    failures.flush()
                    if found[0] == "memory":
                        return  # a fresh process reads the remaining mutations
                Path(name).write_bytes(whole[name])


def _outcome(form: Format, name: str, warned: list[str]) -> tuple[str, str] | None:
    """Read a mutation. Returns a verdict and a kind of failure, or None."""
    warned.clear()
    try:
        form.read(name)
    except InputError as error:
        if not str(error).isprintable():
            return "escape sequences", "an unprintable InputError"
    except Exception as error:
        return "traceback", f"{type(error).__name__} in {_place(error)}"
    return ("traceback", f"warning: {warned[0][:60]}") if warned else None


def _place(error: BaseException) -> str:
    """Return the innermost line of fastvae in an error's traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/fastvae/" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "this suite"


def run(counts: dict[str, int], seed: int, jobs: int, folder: Path, number: int | None) -> Iterator[Tally]:
    """Read the wanted number of mutations of each format, or only the one with a given number."""
    for name, wanted in counts.items():
        first, count = (0, wanted) if number is None else (number, min(wanted, 1))
        tally = Tally(name, count)
        if not count or FORMATS[name].is_missing:
            yield tally
            continue
        chunks = deque(range(at, min(at + _CHUNK, first + count)) for at in range(first, first + count, _CHUNK))
        running: list[_Worker] = []
        began = time.monotonic()
        made = 0
        while chunks or running:
            while chunks and len(running) < jobs:
                made += 1
                running.append(_Worker(name, chunks.popleft(), seed, folder / f"{name}-{made}"))
            time.sleep(0.02)
            for worker in list(running):
                left = _look(worker, tally)
                if left is not None:
                    running.remove(worker)
                    chunks.extend([left] if left else [])
        tally.seconds = time.monotonic() - began
        yield tally


def _look(worker: _Worker, tally: Tally) -> range | None:
    """Return None while a worker runs; once it has ended, the mutations after the one that it ended with."""
    at, since = worker.now()
    ended, status = os.waitpid(worker.pid, os.WNOHANG)
    if not ended:
        too_large = resident(worker.pid) > MEMORY
        if since < _PATIENCE and not too_large:
            return None
        for pid in (*children(worker.pid), worker.pid):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(worker.pid, 0)
        tally.add(*(("memory", "it grew") if too_large else ("hang", f"over {_PATIENCE:g} s")), at)
    elif os.WIFSIGNALED(status):
        tally.add("killed", f"by {signal.Signals(os.WTERMSIG(status)).name}", at)
    elif status:
        words = (worker.folder / "terminal").read_text(errors="replace").rstrip().rpartition("\n")[2]
        tally.add("traceback", f"of the fuzzer itself, {words}", at)
        return range(0)
    for line in (worker.folder / "failures").read_text().splitlines():
        verdict, kind, number = json.loads(line)
        tally.add(verdict, kind, number)
    return range(at + 1, worker.numbers.stop)
