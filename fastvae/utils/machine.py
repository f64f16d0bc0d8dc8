"""What of the machine this process may use."""

import math
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

# A container's limit of processor time, as (time, period): of cgroup v2 in one file, of v1 in two.
_LIMITS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Processor cores: those that the process may run on, or as many as its container's share of time is worth.

    With ``docker run --cpus=2`` on 64 cores torch would start 64 threads, to fight for the time of two.
    """
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), *(_share(cgroup, names) for names in _LIMITS))))


def memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory: the machine's, or as many as its container may have, of cgroup v2 or v1."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            limits.append(int((cgroup / name).read_text()))
    return min(limits)


def check_fits(size: int, what: str, remedy: str = "use a machine with more, or give fewer or smaller images") -> None:
    """Refuse to allocate what a file or a flag asks for, where this machine could never hold it.

    Raises:
        InputError: ``size`` is more than all of :func:`memory`.

    >>> check_fits(10**18, "x.npy: an index of its images")
    Traceback (most recent call last):
    fastvae.utils.errors.InputError: x.npy: an index of its images takes 1,000,000,000 GB of memory, ...
    """
    if size > (held := memory()):
        raise InputError(f"{what} takes {size / 1e9:,.0f} GB of memory, this machine has {held / 1e9:,.0f}: {remedy}")


def _share(cgroup: Path, names: tuple[str, ...]) -> float:
    try:
        time, period = map(int, " ".join((cgroup / name).read_text() for name in names).split())
    except (OSError, ValueError):  # "max" is no number
        return math.inf
    return time / period if time > 0 < period else math.inf  # v1 has -1 for no limit


def cache_folder() -> Path:
    """Return fastvae's folder for downloads, timings and compiled code: $XDG_CACHE_HOME/fastvae, or ~/.cache/fastvae.

    A relative XDG_CACHE_HOME is ignored, as the XDG specification asks.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "fastvae"


def device_name(device: "torch.device") -> str:
    """The device as people know it: the GPU's name, or the processor's."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415 -- who asks has loaded it

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({len(os.sched_getaffinity(0))} cores)"
