"""Arrays of any size: the rows that are asked for, in every layout and type, in any process."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastvae.data.formats import arrays
from fastvae.data.formats.arrays import NumpySource, pair_arrays, read_npy, split_array
from fastvae.data.formats.npy import as_images
from fastvae.data.sources.tensor import TensorSource

LAYOUTS = [(21, 5, 6), (21, 3, 5, 6), (21, 5, 6, 3), (21, 5, 6, 1), (21, 17)]


def numbers(shape, dtype=np.uint8):
    array = np.random.default_rng(0).integers(0, 256, shape)
    return array % 2 == 0 if dtype == "?" else array.astype(dtype)


@pytest.fixture
def large(monkeypatch):
    """Nothing is small enough for memory."""
    monkeypatch.setattr(arrays, "IN_MEMORY", 0)


def saved(folder, array):
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "?", "<f2", ">f4", "<f8"])
def test_small_and_large_files_hold_the_same(tmp_path, monkeypatch, shape, order, dtype):
    path = saved(tmp_path, np.asarray(numbers(shape, dtype), order=order))
    small = read_npy(path)
    monkeypatch.setattr(arrays, "IN_MEMORY", 0)
    for held, source in zip(small, read_npy(path), strict=True):
        assert isinstance(held, TensorSource)
        assert isinstance(source, NumpySource)
        assert (source.shape, source.dtype, len(source)) == (held.shape, held.dtype, len(held))
        assert torch.equal(source.read(range(len(source))), held.images)
        again = pickle.loads(pickle.dumps(source))
        assert torch.equal(again.read([1, 0, 1]), held[[1, 0, 1]])
        assert source.read([]).shape == (0, *held.shape[1:])


@given(indices=st.lists(st.integers(0, 11), max_size=20))
def test_reads_rows_in_any_order(tmp_path_factory, indices):
    array = numbers((12, 6, 5, 3))
    path = saved(tmp_path_factory.getbasetemp(), array)
    source = NumpySource("x", np.load(path, mmap_mode="r"))
    read = source.read(indices)
    assert torch.equal(read, torch.from_numpy(as_images(array)[np.array(indices, dtype=int)]))
    part = source.only(np.array([7, 2, 3]))
    assert (part.shape, len(source)) == ((3, 3, 6, 5), 12)
    assert torch.equal(part.only(np.array([1])).read([0]), source.read([2]))


def test_what_has_its_channels_last_is_read_so(tmp_path, large):
    train, _ = read_npy(saved(tmp_path, numbers((21, 5, 6, 3))))
    assert train.read([3, 1]).is_contiguous(memory_format=torch.channels_last)


def test_a_pickle_has_the_path_and_not_the_data(tmp_path, large):
    train, _ = read_npy(saved(tmp_path, numbers((200, 40, 40))))
    assert len(pickle.dumps(train)) < 4000 < train.bytes


def test_what_is_read_is_the_readers_own(tmp_path, large):
    path = saved(tmp_path, numbers((20, 4, 4)))
    train, _ = read_npy(path)
    train.read([0]).zero_()
    assert torch.equal(train.read([0]), torch.from_numpy(numbers((20, 4, 4)))[1][None, None])


def test_broken_numbers_are_refused_when_they_are_read(tmp_path, large, refuses):
    array = np.zeros((20, 4, 4), np.float32)
    array[7, 1, 1] = np.nan
    train, _ = read_npy(saved(tmp_path, array))
    assert train.read([0, 1]).sum() == 0
    with refuses(tmp_path / "x.npy", "NaN or infinite"):
        train.read([0, 6])


def test_refuses_few_and_differing_images(refuses):
    one = NumpySource("x.npy", np.zeros((1, 4, 4), np.uint8))
    with refuses("x.npy", "1 image"):
        split_array(one)
    with refuses("x.npy has images of (1, 4, 4, 'uint8')", "y.npy has (1, 4, 5, 'uint8')"):
        pair_arrays(one, NumpySource("y.npy", np.zeros((1, 4, 5), np.uint8)))
    with refuses("'uint8'", "'float32'"):
        pair_arrays(one, NumpySource("y.npy", np.zeros((1, 4, 4), np.float64)))


def test_a_file_cut_short_is_told_of(tmp_path, large, refuses):
    path = saved(tmp_path, np.zeros((40, 64, 64), np.uint8))
    train, _ = read_npy(path)
    again = pickle.loads(pickle.dumps(train))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    for source in (train, again):
        with refuses(path, "was cut short", "start again"):
            source.read([0])


@pytest.mark.parametrize("count", [2**30, 2**34])
def test_more_images_than_can_be_counted_are_refused(tmp_path, refuses, count, monkeypatch):
    monkeypatch.setattr("fastvae.utils.machine.memory", lambda: 1 << 34)
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, 1, 1)})
        try:
            file.truncate(file.tell() + count)
        except OSError:
            pytest.skip("a file system without files of this size")
    with refuses(tmp_path / "x.npy", f"an index of its {count:,} images", "GB of memory"):
        read_npy(tmp_path / "x.npy")
