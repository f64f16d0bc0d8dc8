"""HDF5: rows in any order, in any process."""

import multiprocessing
import os
import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.data.formats import arrays, hdf5, open_images
from fastvae.data.formats.hdf5 import Hdf5Source, read_hdf5
from fastvae.utils.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 5, 6, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


@pytest.fixture
def write(tmp_path):
    h5py = pytest.importorskip("h5py")

    def make(**given_arrays):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            for name, array in given_arrays.items():
                file.create_dataset(name.replace("__", "/"), data=array)
        return tmp_path / "x.h5"

    return make


@pytest.fixture
def large(monkeypatch):
    """Nothing is small enough for memory."""
    monkeypatch.setattr(arrays, "IN_MEMORY", 0)
    monkeypatch.setattr(hdf5, "IN_MEMORY", 0)


def test_small_files_are_read_into_memory(write):
    train, test = read_hdf5(write(labels=np.arange(21), anything=IMAGES), None)
    assert torch.equal(test.images, EXPECTED[::10])
    assert torch.equal(train.images, EXPECTED[torch.arange(21) % 10 != 0])


def test_large_files_are_read_by_rows(write, large):
    train, test = read_hdf5(write(x_train=IMAGES[:15], x_test=IMAGES[15:]), None)
    assert isinstance(train, Hdf5Source)
    assert (train.shape, train.dtype) == ((15, 3, 5, 6), torch.uint8)
    assert torch.equal(train.read([14, 0, 3, 0]), EXPECTED[[14, 0, 3, 0]])
    assert torch.equal(test.read(range(6)), EXPECTED[15:])
    assert train.read([]).shape == (0, 3, 5, 6)


@given(indices=st.lists(st.integers(0, 18), max_size=20))
def test_reads_rows_in_any_order(tmp_path_factory, indices):
    h5py = pytest.importorskip("h5py")
    path = tmp_path_factory.getbasetemp() / "any.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=IMAGES, chunks=(4, 5, 6, 3), compression="gzip")
    source = Hdf5Source(path, "images", IMAGES.shape, IMAGES.dtype).only(np.arange(20, 1, -1))
    assert torch.equal(source.read(indices), EXPECTED[[20 - index for index in indices]])


def read_one(source):
    return source.read([3, 1])


def test_another_process_opens_the_file_for_itself(write, large):
    train, _ = read_hdf5(write(images=IMAGES), None)
    expected = train.read([3, 1])
    assert torch.equal(read_one(pickle.loads(pickle.dumps(train))), expected)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert torch.equal(pool.apply(read_one, [train]), expected)


@pytest.mark.parametrize("key", ["a/b", "/a/b/"])
def test_a_data_set_can_be_named(write, key):
    path = write(a__b=IMAGES, a__c=IMAGES, images=IMAGES[:, :, :, 0])
    train, _ = open_images(f"{path}:{key}", None)
    assert torch.equal(train[0], EXPECTED[1])
    assert open_images(str(path), None)[0].shape == (18, 1, 5, 6)


def test_refuses_what_is_no_data_set_of_images(write, refuses):
    path = write(a__b=IMAGES, c=IMAGES, d=np.arange(5))
    with refuses(path, "several arrays", "a/b (21, 5, 6, 3) uint8", f"{path}:a/b"):
        read_hdf5(path, None)
    for key in ("a", "e"):
        with refuses(path, repr(key), "a/b, c, d"):
            read_hdf5(path, key)
    with refuses(f"{path}:d", "int64"):
        read_hdf5(path, "d")
    path = write(words=["a", "b"])
    with refuses(f"{path}:words", "object"):
        read_hdf5(path, None)
    with refuses(path, "nothing"):
        read_hdf5(write(), None)


def test_refuses_files_that_are_no_hdf5(write, refuses, tmp_path):
    with refuses(tmp_path / "none.h5", "can't be read as HDF5"):
        read_hdf5(tmp_path / "none.h5", None)
    path = write(images=IMAGES)
    for content in (b"text", path.read_bytes()[:-100]):
        path.write_bytes(content)
        with refuses(path, "can't be read as HDF5"):
            read_hdf5(path, None)


def test_refuses_damaged_rows_when_they_are_read(large, refuses, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("images", data=IMAGES, chunks=(1, 5, 6, 3), fletcher32=True)
        place = dataset.id.get_chunk_info(13).byte_offset
    with (tmp_path / "x.h5").open("r+b") as file:
        file.seek(place)
        file.write(bytes(20))
    train, _ = read_hdf5(tmp_path / "x.h5", None)
    assert torch.equal(train.read([0]), EXPECTED[1:2])
    with refuses(tmp_path / "x.h5", "images", "can't be read"):
        train.read([0, 11])  # number 13 of all


def test_refuses_a_file_that_went_away(write, large, refuses):
    path = write(images=IMAGES)
    train, _ = read_hdf5(path, None)
    path.unlink()
    with refuses(f"{path}:images", "can't be read", "leave it as it is"):
        train.read([0])


def test_says_what_to_install(monkeypatch, refuses):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with refuses("x.h5", "h5py", "pip install fastvae[hdf5]"):
        open_images("x.h5", None)


def test_bytes_outside_of_the_file_are_refused(tmp_path, refuses):
    h5py = pytest.importorskip("h5py")
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = IMAGES
    layout = h5py.VirtualLayout(IMAGES.shape, "u1")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["inside"] = IMAGES
        for name, source in (("other", "other.h5"), ("within", tmp_path / "x.h5")):
            key = {"other": "images", "within": "inside"}[name]
            layout = h5py.VirtualLayout(IMAGES.shape, "u1")
            layout[:] = h5py.VirtualSource(source, key, IMAGES.shape)
            file.create_virtual_dataset(name, layout)
        for name, outside in (("passwd", "/etc/passwd"), ("piped", str(tmp_path / "pipe"))):
            file.create_dataset(name, (9, 5, 6), "u1", external=[(outside, 0, 270)])
        layout = h5py.VirtualLayout((9, 5, 6), "u1")
        layout[:] = h5py.VirtualSource(tmp_path / "x.h5", "passwd", (9, 5, 6))
        file.create_virtual_dataset("twice", layout)
        file["linked"] = h5py.ExternalLink("other.h5", "images")
        layout = h5py.VirtualLayout(IMAGES.shape, "u1")
        layout[:] = h5py.VirtualSource(tmp_path / "x.h5", "linked", IMAGES.shape)
        file.create_virtual_dataset("by_link", layout)
    train, _ = read_hdf5(tmp_path / "x.h5", "within")
    assert torch.equal(train[0], EXPECTED[1])
    for key, outside in (
        ("other", "other.h5:images"), ("passwd", "/etc/passwd"), ("piped", tmp_path / "pipe"), ("twice", "/etc/passwd"),
        ("by_link", "linked"),
    ):  # fmt: skip
        with refuses(tmp_path / "x.h5", outside, "outside of the file", "h5repack"):
            read_hdf5(tmp_path / "x.h5", key)
    with refuses("no data set 'linked'"):
        read_hdf5(tmp_path / "x.h5", "linked")


def test_more_images_than_can_be_counted_are_refused(tmp_path, refuses):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("images", (10**13, 2, 2), "u1", chunks=(1, 2, 2))
    with refuses(tmp_path / "x.h5", "unpacks from 0 bytes to 40,000,000,000,000"):
        read_hdf5(tmp_path / "x.h5", None)


@settings(deadline=None, max_examples=300)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=40), held=st.booleans()
)
def test_any_damage_is_read_or_refused(tmp_path_factory, changes, held):
    h5py = pytest.importorskip("h5py")
    path = tmp_path_factory.getbasetemp() / "fuzzed.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a/images", data=IMAGES[:4, :, :2], chunks=(1, 5, 2, 3), compression="gzip")
        file["labels"] = np.arange(4)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        if not held:
            patch.setattr(arrays, "IN_MEMORY", 0)
            patch.setattr(hdf5, "IN_MEMORY", 0)
        try:
            train, _ = read_hdf5(path, None)
            if not held and len(train) < 100:
                train.read(range(len(train)))
            message = str(path)
        except InputError as error:
            message = str(error)
    assert str(path) in message


def test_a_chunk_larger_than_memory_is_refused(tmp_path, refuses, monkeypatch, large):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("images", (2, 2000, 2000), "u1", chunks=(2, 2000, 2000))
    monkeypatch.setattr("fastvae.utils.machine.memory", lambda: 1 << 20)
    with refuses(tmp_path / "x.h5", "one chunk", "GB of memory"):
        read_hdf5(tmp_path / "x.h5", None)
