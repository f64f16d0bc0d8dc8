"""What of the machine this process may use."""

import math
import os
from pathlib import Path

# A container's limit of processor time, as (time, period): of cgroup v2 in one file, of v1 in two.
_LIMITS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Processor cores: those that the process may run on, or as many as its container's share of time is worth.

    With ``docker run --cpus=2`` on 64 cores torch would start 64 threads, to fight for the time of two.
    """
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), *(_share(cgroup, names) for names in _LIMITS))))


def _share(cgroup: Path, names: tuple[str, ...]) -> float:
    try:
        time, period = map(int, " ".join((cgroup / name).read_text() for name in names).split())
    except (OSError, ValueError):  # "max" is no number
        return math.inf
    return time / period if time > 0 < period else math.inf  # v1 has -1 for no limit
