"""Images in a mapped file: what is read, by whom, and every refusal."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.data.sources import memmap
from fastvae.data.sources.memmap import MemmapSource


def filled(path, shape):
    """A file of random images, and these."""
    count, channels, height, width = shape
    rows = torch.randint(256, (count, height, width, channels), dtype=torch.uint8)
    path.write_bytes(rows.numpy().tobytes())
    return rows.permute(0, 3, 1, 2)


@pytest.fixture(params=[1 << 40, 0], ids=["small", "large"])
def memory(request, monkeypatch):
    """A machine that can hold the file, and one that cannot."""
    monkeypatch.setattr(memmap, "memory", lambda: request.param)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 70), st.integers(1, 70)),
    memory=st.sampled_from([0, 1 << 40]),
    data=st.data(),
)
def test_reads_any_rows(tmp_path_factory, shape, memory, data):
    path = tmp_path_factory.getbasetemp() / "rows.bin"
    expected = filled(path, shape)
    indices = data.draw(st.lists(st.integers(0, shape[0] - 1), max_size=20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memmap, "memory", lambda: memory)
        images = MemmapSource(path, shape)
    read = images.read(indices)
    assert read.is_contiguous(memory_format=torch.channels_last)
    assert read.dtype == images.dtype == torch.uint8
    assert (len(images), images.shape) == (shape[0], shape)
    assert torch.equal(read, expected[torch.tensor(indices, dtype=torch.int64)])
    assert torch.equal(images.read(range(shape[0])), expected)


def test_what_is_read_is_a_copy(tmp_path, memory):
    expected = filled(tmp_path / "rows.bin", (4, 3, 5, 6)).clone()
    images = MemmapSource(tmp_path / "rows.bin", (4, 3, 5, 6))
    images.read([0, 3]).zero_()
    assert torch.equal(images.read(range(4)), expected)
    assert torch.equal(MemmapSource(tmp_path / "rows.bin", (4, 3, 5, 6)).read(range(4)), expected)


def test_a_file_that_may_only_be_read(tmp_path, memory):
    expected = filled(tmp_path / "rows.bin", (4, 1, 5, 6))
    (tmp_path / "rows.bin").chmod(0o400)
    assert torch.equal(MemmapSource(tmp_path / "rows.bin", (4, 1, 5, 6)).read([2]), expected[[2]])


def test_a_file_larger_than_the_memory(tmp_path):
    size = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with (tmp_path / "rows.bin").open("wb") as file:
        file.truncate(size)  # a hole: it takes no room
    images = MemmapSource(tmp_path / "rows.bin", (size // 4096, 1, 64, 64))
    assert not images.read([0, len(images) - 1]).any()


def test_a_file_that_is_replaced_stays_as_it_was(tmp_path):
    expected = filled(tmp_path / "rows.bin", (4, 3, 5, 6)).clone()
    images = MemmapSource(tmp_path / "rows.bin", (4, 3, 5, 6))
    filled(tmp_path / "new.bin", (4, 3, 5, 6))
    (tmp_path / "new.bin").replace(tmp_path / "rows.bin")
    assert torch.equal(images.read(range(4)), expected)


def test_a_pickle_has_the_path_alone(tmp_path, monkeypatch, refuses):
    expected = filled(tmp_path / "rows.bin", (50, 3, 50, 60))
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(MemmapSource(Path("rows.bin"), (50, 3, 50, 60)))
    assert len(content) < 500
    monkeypatch.chdir("/")
    assert torch.equal(pickle.loads(content).read([7]), expected[[7]])
    (tmp_path / "rows.bin").unlink()
    with refuses(tmp_path / "rows.bin", "No such file"):
        pickle.loads(content)


@pytest.mark.parametrize("change", [-1, 1])
def test_refuses_another_size(tmp_path, refuses, change):
    filled(tmp_path / "rows.bin", (4, 3, 5, 60))
    os.truncate(tmp_path / "rows.bin", 3600 + change)
    with refuses(tmp_path / "rows.bin", f"{3600 + change:,} bytes", "not 3,600", f"remove the folder {tmp_path}"):
        MemmapSource(tmp_path / "rows.bin", (4, 3, 5, 60))


def test_refuses_what_cannot_be_read(tmp_path, refuses):
    with refuses(tmp_path / "none.bin", "No such file"):
        MemmapSource(tmp_path / "none.bin", (4, 3, 5, 6))
    with refuses(tmp_path, "is a folder, not a regular file"):
        MemmapSource(tmp_path, (4, 3, 5, 6))


def test_a_file_cut_short_is_told_of(tmp_path, memory, refuses):
    filled(tmp_path / "rows.bin", (4, 3, 50, 60))
    images = MemmapSource(tmp_path / "rows.bin", (4, 3, 50, 60))
    with (tmp_path / "rows.bin").open("r+b") as file:
        file.truncate(10)
    with refuses(tmp_path / "rows.bin", "was cut short", "10 bytes, not 36,000"):
        images.read([3])
