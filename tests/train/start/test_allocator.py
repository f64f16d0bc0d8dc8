"""The memory that the C library's allocator holds."""

import subprocess
import sys

import pytest

# A step as torch makes it: memory of some MB is taken, written, and freed again, at the end of the heap.
SCRIPT = """
import os, resource
from fastvae.train.start.allocator import keeping_freed_memory
import torch

def faults(count=30):
    def step():
        return [torch.ones(1_000_000) for _ in range(20)]
    for _ in range(count):  # the heap grows until blocks of every size find a place
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

with keeping_freed_memory():
    inside = faults()
    held = resident()
print(inside, held - resident())
"""


def measured(**environment: str) -> list[float]:
    command = [sys.executable, "-c", SCRIPT]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": "", **environment})
    return [float(value) for value in ran.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_step_finds_the_memory_of_the_last_one_and_the_end_gives_it_back():
    inside, given_back = measured()
    assert inside < 100  # pages of 4 KB, of the 20,000 that a step writes
    assert given_back > 50e6


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_TRIM_THRESHOLD_": "1000000"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1000000"}],
)
def test_a_choice_of_the_users_stays(environment):
    inside, _ = measured(**environment)
    assert inside > 1000
