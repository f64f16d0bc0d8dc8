"""A command in a process of its own, watched for time, memory and processes that it leaves behind."""

import contextlib
import ctypes
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from place import Place

MEMORY = int(2.5 * (1 << 30))  # bytes that any single process may use
_PERIOD = 0.03  # seconds between two checks
_PR_SET_CHILD_SUBREAPER, _PR_SET_PDEATHSIG = 36, 1
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Outcome:
    """The end of a command. ``status`` is -N if signal N killed it; ``stopped`` is why we did: "hang" or "memory"."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    peak: int
    stopped: str = ""


class Watched:
    """A running command. Unless ``fresh``, it is forked from this process, which has imported everything it needs."""

    def __init__(self, place: Place, command: Sequence[str], *, fresh: bool) -> None:
        self.place = place
        self.peak = 0
        # Processes that it leaves behind become children of this one, even in another session.
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            end_with_parent()
            _become(place, command, fresh or command[0] != "fastvae")

    def is_over(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def processes(self) -> list[int]:
        """Return the command and its descendants, except those whose parents have ended."""
        found = []
        todo = [self.pid]
        while todo:
            found.append(todo.pop())
            todo += children(found[-1])
        return found

    def end(self, seconds: float, during: Callable[[Place, "Watched"], bool] | None) -> Outcome:
        """Wait for the end of the command. ``during`` is called repeatedly until it returns True."""
        began = time.monotonic()
        stopped = ""
        try:
            while not self.is_over() and not stopped:
                if during is not None and during(self.place, self):
                    during = None
                self.peak = max([self.peak, *map(resident, self.processes())])
                stopped = "memory" if self.peak > MEMORY else "hang" if time.monotonic() - began > seconds else ""
                time.sleep(_PERIOD)
        finally:
            if not self.is_over():
                os.kill(self.pid, signal.SIGKILL)
            _, status, usage = os.wait4(self.pid, 0)
            took = time.monotonic() - began
            while left := children(os.getpid()):
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        said = [_said(path) for path in (self.place.stdout, self.place.root / "err")]
        return Outcome(os.waitstatus_to_exitcode(status), *said, took, max(self.peak, usage.ru_maxrss << 10), stopped)


def end_with_parent() -> None:
    """Have this process killed when its parent ends, so that nothing outlives the suite."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Return the children of a process, including those it inherited when their parents ended."""
    found = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _said(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape") if path.is_file() else ""


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _become(place: Place, command: Sequence[str], fresh: bool) -> NoReturn:
    """Run the command in the forked process, and exit."""
    os.setsid()
    os.chdir(place.work)
    for number, name in enumerate((os.devnull, place.stdout, place.root / "err")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        os.dup2(os.open(name, flags, 0o600), number)
    arguments = [str(place.console), *command[1:]] if command[0] == "fastvae" else list(command[1:])
    if fresh:
        os.execve(sys.executable, [sys.executable, *arguments], place.environment)
    os.environ.clear()
    os.environ.update(place.environment)
    tempfile.tempdir = None  # it has cached another TMPDIR
    os._exit(_called(arguments))


def _called(arguments: list[str]) -> int:
    """Call fastvae's main as an interpreter would, and return its exit status."""
    from fastvae.cli import main  # noqa: PLC0415 -- imported before the fork; the watcher itself does not need it

    sys.argv[:] = arguments
    try:
        main()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    return status
