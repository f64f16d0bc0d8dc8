"""One run that is broken, in processes that can be watched and killed."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# All that a run imports, before processes are forked: faults are to befall runs, not imports.
import matplotlib.figure
import matplotlib.font_manager  # it writes a cache of its own
import matplotlib.image  # noqa: F401
import torch._dynamo  # noqa: F401
import torchvision.utils  # noqa: F401

import fastvae.train.run  # noqa: F401
from fastvae.train.checkpoint import checkpoint
from fastvae.train.cli import main as train
from fastvae.utils.errors import InputError

FLAGS = ["--device", "cpu", "--deterministic", "--precision", "fp32", "--epochs", "25", "--checkpoint-every", "7"]
TIMEOUT = 120.0  # seconds, of one run


class MissedError(Exception):
    """The run was over, or not yet so far, when the fault was to befall it: nothing was tried."""


class Run:
    """`fastvae train` in a process forked from this one, the leader of a group; it goes on if its folder has a run."""

    def __init__(
        self,
        folder: Path,
        flags: Sequence[str],
        before: Callable[[], object] = lambda: None,
        log: Path | None = None,
    ) -> None:
        self.folder, self.log = folder, log or folder.with_suffix(".log")
        resume = ["--resume"] if (folder / "config.json").exists() else []
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            with self.log.open("wb", buffering=0) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            before()
            os._exit(train([*FLAGS, *flags, "--out", str(folder), *resume]))

    def is_over(self) -> bool:
        return (
            self._status is not None or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        )

    def watch(self, seconds: float, until: Callable[[], object] = lambda: False) -> None:
        """Let it run for so long, or until something is so, or it ends."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until() and not self.is_over():
            time.sleep(0.001)

    def send(self, number: int) -> None:
        """Send a signal to its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def children(self) -> list[int]:
        """The processes that it has started, if they run."""
        with contextlib.suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def end(self) -> int:
        """Wait for it. Returns its exit status, or 128 + the signal that killed it."""
        if self._status is not None:
            return self._status
        self.watch(TIMEOUT)
        ended = self.is_over()
        self.send(signal.SIGKILL)  # what did not end, and what it may have left
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert ended, f"did not end in {TIMEOUT:g} s: {self.log.read_text()}"
        self._status = 128 - status if status < 0 else status
        return self._status


class Trial:
    """A run that one fault befalls, and what is known of the undisturbed one."""

    def __init__(self, folder: Path, flags: Sequence[str], dice: random.Random, seconds: float) -> None:
        self.folder, self.flags, self.dice, self.seconds = folder, flags, dice, seconds
        self.damaged = 0  # bytes of the checkpoints that this trial damages itself

    def start(self, *flags: str, before: Callable[[], object] = lambda: None) -> Run:
        return Run(self.folder, [*self.flags, *flags], before)

    def moment(self) -> float:
        """Any, in seconds from the start."""
        return self.dice.uniform(0, self.seconds)

    def checkpoints(self) -> list[Path]:
        """Those that can be read, newest first; never one that is half written."""
        return readable(self.folder)


def readable(folder: Path) -> list[Path]:
    """The checkpoints of a run that are whole, newest first."""
    found = []
    for path in sorted((folder / "checkpoints").glob("step-*.safetensors"), reverse=True):
        with contextlib.suppress(InputError):
            checkpoint.load(path)
            found.append(path)
    return found


def learnt(folder: Path) -> dict[str, bytes]:
    """All bits of the tensors of a run's last checkpoint: weights, optimiser, noise, sums."""
    _, found, skipped = checkpoint.newest(folder / "checkpoints")
    if skipped:
        raise InputError(f"a finished run has a damaged checkpoint: {skipped[0]}")
    return {name: tensor.contiguous().view(-1).numpy().tobytes() for name, tensor in found.tensors.items()}
