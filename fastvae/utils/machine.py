"""Facts about the machine: the cores and memory that this process may use, its cache folder, the name of a device."""

import math
import os
import platform
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .errors import InputError

if TYPE_CHECKING:
    import torch

Backend = Literal["auto", "triton", "native", "reference"]  # the implementations of an operation
# In torch's errors about sizes beyond the address space.
_OVERFLOWS = ("calculation overflowed", "multiplication overflow")
# A container's limit on CPU time, as (time, period): in one file for cgroup v2, in two for v1.
_LIMITS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of cores that the process may use: its CPU affinity, or its container's limit if that is lower.

    With ``docker run --cpus=2`` on 64 cores, torch would otherwise start 64 threads that compete for the time of two.
    """
    limits = [_limit_of_cores(cgroup, names) for names in _LIMITS]
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), *limits)))


class OtherLoad:
    """The time that other programs take of the cores of this process's CPU affinity, from one look to the next.

    Niced programs do not count, since they give way, and neither does this process. Its children count as other
    programs. Linux counts in steps of 10 ms.
    """

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._last = self._read()

    def cores(self, seconds: float) -> float | None:
        """Return the mean number of cores that other programs kept busy since the last look.

        Returns None, and does not look, if that was less than ``seconds`` ago, or if the kernel does not tell.
        """
        if self._last is None or time.monotonic() - self._last[0] < seconds:
            return None
        before = self._last
        self._last = self._read()
        if self._last is None:
            return None
        passed, busy, own = (now - then for now, then in zip(self._last, before, strict=True))
        return max(0.0, busy - own) / passed

    def _read(self) -> tuple[float, float, float] | None:
        """Return the time, and the CPU seconds so far: of all programs on these cores, and of this process."""
        names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        try:
            lines = [line.split() for line in self._stat.read_text().splitlines()]
            # user, nice, system, idle, iowait, irq, softirq, steal: the last is the time that other machines took
            columns = [[int(line[place]) for place in (1, 3, 6, 7, 8)] for line in lines if line and line[0] in names]
        except (OSError, ValueError, IndexError):
            return None
        if len(columns) != len(names):
            return None
        own = os.times()
        return time.monotonic(), sum(map(sum, columns)) / os.sysconf("SC_CLK_TCK"), own.user + own.system


def memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory: the machine's, or its container's limit (cgroup v2 or v1) if that is lower."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" means no limit
            limits.append(int((cgroup / name).read_text()))
    return min(limits)


def check_fits(size: int, what: str, remedy: str = "use a machine with more, or give fewer or smaller images") -> None:
    """Refuse an allocation that this machine could never hold, before a file or a flag causes it.

    Raises:
        InputError: ``size`` is more than all of :func:`memory`.

    >>> check_fits(10**18, "x.npy: an index of its images")
    Traceback (most recent call last):
    fastvae.utils.errors.InputError: x.npy: an index of its images takes 1,000,000,000 GB of memory, ...
    """
    held = memory()
    if size > held:
        raise InputError(f"{what} takes {size / 1e9:,.0f} GB of memory, this machine has {held / 1e9:,.0f}: {remedy}")


def shortage(error: BaseException) -> str | None:
    """Say how much memory was asked for and how much there is, if that is what an error is about; else return None.

    Python's, NumPy's and torch's errors are known: a MemoryError, and those of torch's allocators of a CPU and a GPU.

    >>> shortage(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9000000000000 bytes."))
    '9,000.00 GB were asked for, this machine has ...
    >>> shortage(RuntimeError("another"))
    """
    said = " ".join(str(error).split())
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU: it says all that there is to say
        return said.partition(" If reserved but")[0].partition(" See documentation")[0]
    asked = re.search(r"you tried to allocate (\d+) bytes", said)
    if asked is not None:
        wanted = f"{int(asked[1]) / 1e9:,.2f} GB were asked for"
    elif isinstance(error, MemoryError) or any(words in said for words in _OVERFLOWS):
        wanted = said or "more was asked for"
    else:
        return None
    return f"{wanted}, this machine has {memory() / 1e9:,.0f} GB, of which {_available() / 1e9:,.1f} are free"


def _available() -> int:
    """Return the bytes of memory that a new program could have, as the kernel estimates them."""
    with suppress(OSError, ValueError, IndexError):
        found = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable")]
        return int(found[0].split()[1]) << 10
    return 0


def _limit_of_cores(cgroup: Path, names: tuple[str, ...]) -> float:
    """Return the cores that a cgroup's limit amounts to, CPU time over period; infinity if there is no limit."""
    try:
        time, period = map(int, " ".join((cgroup / name).read_text() for name in names).split())
    except (OSError, ValueError):  # "max" means no limit
        return math.inf
    if time <= 0 or period <= 0:  # cgroup v1 has -1 for no limit
        return math.inf
    return time / period


def cache_folder() -> Path:
    """Return fastvae's folder for downloads, timings and compiled code: $XDG_CACHE_HOME/fastvae, or ~/.cache/fastvae.

    A relative XDG_CACHE_HOME is ignored, as the XDG specification asks. A user without a home folder, such as an
    arbitrary one of a container, has ``fastvae-UID`` in the temporary folder.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        return Path(tempfile.gettempdir()) / f"fastvae-{os.getuid()}"
    return Path(base) / "fastvae"


def device_name(device: "torch.device") -> str:
    """Return the name of the GPU, or that of the processor with the number of its cores."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415 -- the caller has a torch.device, so torch is loaded

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({len(os.sched_getaffinity(0))} cores)"
