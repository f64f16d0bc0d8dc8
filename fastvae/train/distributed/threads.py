"""The CPU threads of a run: as many as there are cores that other programs leave free."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastvae._command import WAITING
from fastvae.utils.machine import OtherLoad
from fastvae.utils.terminal import Terminal

from .world import World, user_set_threads

_FIRST = 0.25  # seconds of other programs' load that the first look needs: the kernel counts in steps of 0.01
_EVERY = 2.0  # seconds between two looks


class Threads:
    """The number of threads that torch uses in this process, less than all while other programs keep cores busy.

    OpenMP gives each thread an equal part and waits for the last, so a thread whose core has another program on it
    slows all of them down. leaky (MNIST, bf16) on two cores, images/s: alone 66,000; beside a busy loop 26,000 with two
    threads, 42,000 with one.

    Args:
        load: looks at other programs, since before the run.
        adapts: False leaves the number as it is.
        looks: False leaves other programs alone.
    """

    def __init__(self, load: OtherLoad, *, adapts: bool, looks: bool = True) -> None:
        self._load = load
        self._looks = looks and torch.get_num_threads() > 1
        self._adapts = adapts and self._looks
        self._most = torch.get_num_threads()
        self._others = 0.0
        self._seconds = _FIRST

    def fit(self) -> None:
        """Take one thread for each free core, at least one, if other programs' load was seen for long enough."""
        if not self._looks:
            return
        others = self._load.cores(self._seconds)
        if others is None:
            return
        self._seconds = _EVERY
        self._others = others
        self._looks = self._adapts
        threads = self._free()
        if self._adapts and threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    def _free(self) -> int:
        """Return the number of threads that have a core to themselves, at least one."""
        return max(1, min(self._most, len(os.sched_getaffinity(0)) - int(self._others + 0.5)))

    def advice(self) -> str | None:
        """Return what to do about other programs, in a sentence, where the number of threads does not follow them."""
        if self._adapts or self._free() == self._most:
            return None
        told = f"other programs keep {self._others:.1f} cores busy: OMP_NUM_THREADS={self._free()} may be faster"
        if any(name in os.environ for name in WAITING):
            return told
        return f"{told}, and so may GOMP_SPINCOUNT=1000, which `import fastvae` sets if it comes before `import torch`"

    def __str__(self) -> str:
        threads = torch.get_num_threads()
        told = f"{threads} thread{'s' if threads > 1 else ''}"
        if threads == self._most:
            return told
        return f"{told} of {self._most}, as other programs keep {self._others:.1f} cores busy"


@contextmanager
def fitting(world: World, load: OtherLoad, console: Terminal, *, adapts: bool, looks: bool = True) -> Iterator[Threads]:
    """Fit the threads to the load now, and give the caller all of them back in the end.

    The number stays as it is for a run on a GPU, where the user set it, or if ``adapts`` is False: then the console
    gets a line if other programs are busy. With ``looks`` False nobody looks at these.
    """
    threads = Threads(load, adapts=adapts, looks=looks and world.device.type == "cpu" and not user_set_threads())
    most = torch.get_num_threads()
    try:
        threads.fit()
        if (advice := threads.advice()) is not None:
            console.print(f"fastvae: {advice}", style="yellow", markup=False)
        yield threads
    finally:
        if torch.get_num_threads() != most:
            torch.set_num_threads(most)
