"""Fixtures of all benchmarks, and the closing table with each contender's speed relative to the baselines."""

import platform
import statistics

import pytest
import torch

from fastvae.bench.warm_up import page_in_constants
from fastvae.train.config import TrainConfig
from fastvae.train.step.torch_flags import torch_flags
from fastvae.utils.machine import device_name


@pytest.fixture(scope="session", autouse=True)
def fair_start(device):
    """Load torch's constants into memory, and set its flags as ``fastvae train`` does: no TF32 in convolutions."""
    page_in_constants()
    with torch_flags(TrainConfig(), device):
        yield


@pytest.fixture(scope="session")
def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_benchmark_update_machine_info(config, machine_info):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine_info["device"] = device_name(device)
    machine_info["torch"] = torch.__version__
    machine_info["threads"] = torch.get_num_threads()


def pytest_terminal_summary(terminalreporter, config):
    """Print each group's medians, their spread, and the speed relative to every baseline of the group.

    "of a copy" is the time in which torch copies a tensor, moving as many bytes as an ideal pass, over the operation's
    time. "MB" is the peak memory beyond the inputs. On a GPU the medians are device times, and "wall" is the time of a
    plain loop; a call that cannot be captured in a CUDA graph has only the latter, and no ratios.
    """
    session = getattr(config, "_benchmarksession", None)
    benchmarks = [bench for bench in (session.benchmarks if session else []) if bench.stats.data]
    if not benchmarks:
        return
    write = terminalreporter.write_line
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    terminalreporter.section("fastvae benchmarks")
    write(f"{device_name(device)}; torch {torch.__version__}; Python {platform.python_version()}")
    for group in dict.fromkeys(bench.group for bench in benchmarks):
        members = [bench for bench in benchmarks if bench.group == group]
        medians = {
            bench.extra_info["name"]: statistics.median(bench.stats.data)
            for bench in members
            if "not_captured" not in bench.extra_info
        }
        write("")
        write(group)
        for rotated in dict.fromkeys(bench.extra_info["rotated"] for bench in members if "rotated" in bench.extra_info):
            write(f"  device time, {rotated} in rotation")
        for bench in members:
            info = bench.extra_info
            name = info["name"]
            wall = f"wall {info['wall_s'] * 1e3:.3f} ms  " if "wall_s" in info else ""
            if "not_captured" in info:
                write(f"  {name:<34} {wall}cannot be captured: {info['not_captured']}")
                continue
            median = medians[name]
            scale = 1e3 / info.get("per", 1)  # to ms
            quartiles = statistics.quantiles(bench.stats.data, n=4) if len(bench.stats.data) > 1 else [median] * 3
            ratios = "  ".join(
                f"{medians[base] / median:6.2f}x {base}"
                for base in (other.extra_info["name"] for other in members if other.extra_info.get("baseline"))
                if base != name and base in medians
            )
            rate = ""
            if "copy_s" in info:
                rate = f"{info['bytes'] / median / 1e9:7.1f} GB/s  {info['copy_s'] / median:5.2f} of a copy  "
            if "flops" in info:
                rate = f"{info['flops'] / median / 1e9:7.1f} GFLOP/s  "
            if "peak_bytes" in info:
                rate += f"{info['peak_bytes'] / 1e6:7.1f} MB  "
            write(
                f"  {name:<34} {median * scale:9.3f} ms  "
                f"(quartiles {quartiles[0] * scale:.3f} to {quartiles[2] * scale:.3f})  {wall}{rate}{ratios}"
            )
