"""The cores and the memory that this process may use, and the folder of its cache."""

import os
import tempfile
from pathlib import Path

import pytest

from fastvae.utils.errors import InputError
from fastvae.utils.machine import OtherLoad, cache_folder, check_fits, cores, memory, shortage


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "1000 100000\n"}, 1),
        ({"cpu.max": "12800000 100000\n"}, 64),
        ({"cpu.max": "???\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "310000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "310000\n"}, 64),
    ],
)
def test_a_containers_limit_counts(files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cores(tmp_path) == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("memory.max", "max\n", 1 << 36),
        ("memory.max", "1000000\n", 1_000_000),
        ("memory/memory.limit_in_bytes", "2000000\n", 2_000_000),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", 1 << 36),
    ],
)
def test_a_containers_memory_counts(name, content, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1 << 24, "SC_PAGE_SIZE": 1 << 12}.get)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    assert memory(tmp_path) == expected


def test_what_never_fits_is_refused():
    check_fits(memory(), "all of it")
    with pytest.raises(InputError, match=r"^an index takes .* GB of memory, this machine has .*: give less$"):
        check_fits(memory() + 1, "an index", "give less")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000 bytes. Error 12"),
         "8.00 GB were asked for, this machine has "),
        (MemoryError("Unable to allocate 7.45 GiB for an array with shape (9,)"), "Unable to allocate 7.45 GiB for "),
        (MemoryError(), "more was asked for, this machine has "),
        (RuntimeError("Storage size calculation overflowed with sizes=[9]"), "Storage size calculation overflowed"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. If reserved but unallocated memory is large"),
         "CUDA out of memory. Tried to allocate 2 GiB."),
    ],
)  # fmt: skip
def test_a_shortage_of_memory_is_told_with_what_was_asked_for(error, words):
    told = shortage(error)
    assert told.startswith(words)
    assert "reserved" not in told


def test_other_errors_are_no_shortage():
    assert shortage(RuntimeError("shape mismatch")) is None
    assert shortage(ValueError("you tried to allocate a name")) is None


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("/elsewhere", "/elsewhere/fastvae"), ("", "~/.cache/fastvae"), ("relative", "~/.cache/fastvae")],
)
def test_the_cache_is_where_the_xdg_specification_says(variable, expected, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    assert cache_folder() == Path(expected).expanduser()


def test_a_user_without_a_home_has_a_cache_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache_folder() == tmp_path / f"fastvae-{os.getuid()}"


STAT = """cpu  9 9 9 9 9 9 9 9 0 0
cpu0 {user} 5000 100 9000 10 1 2 {steal} 0 0
cpu1 400 0 300 8000 20 0 0 0 0 0
cpu2 {elsewhere} 0 0 0 0 0 0 0 0 0
intr 5
"""


@pytest.fixture
def stat(tmp_path, monkeypatch):
    """A kernel that counts in hundredths of a second, and a process that may run on two of three cores."""
    clock = [10.0]
    own = [1.0]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "times", lambda: os.times_result((own[0], 0.5, 7.0, 7.0, 99.0)))
    file = tmp_path / "stat"

    def write(seconds, used, **counts):
        clock[0] += seconds
        own[0] += used
        file.write_text(STAT.format(**{"user": 0, "steal": 0, "elsewhere": 0, **counts}))
        return file

    return write


def test_other_programs_load_is_that_of_these_cores_without_this_process(stat):
    load = OtherLoad(stat(0, 0))
    stat(2, 1.5, user=250, steal=100, elsewhere=700)  # 3.5 s of two cores in 2 s, 1.5 of them this process's
    assert load.cores(2.0) == pytest.approx(1.0)
    stat(1, 0.5, user=250, steal=100, elsewhere=900)
    assert load.cores(2.0) is None  # too soon: it counts on
    stat(1, 0.5, user=350, steal=100)
    assert load.cores(2.0) == 0.0


@pytest.mark.parametrize("content", ["", "cpu0 1 2\n", "cpu0 a b c d e f g h\n", STAT.replace("cpu1", "cpu7")])
def test_where_the_kernel_does_not_tell_the_load_is_unknown(stat, content):
    file = stat(0, 0)
    load = OtherLoad(file)
    stat(5, 0)
    file.write_text(content)
    assert load.cores(1.0) is None
    stat(5, 0)
    assert load.cores(1.0) is None
    assert OtherLoad(file.with_name("nothing")).cores(0.0) is None
