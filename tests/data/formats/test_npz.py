"""Archives of arrays: mapped where they are stored, unpacked where not; no pickle is ever loaded."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.data.formats import arrays
from fastvae.data.formats.arrays import NumpySource
from fastvae.data.formats.npz import read_npz
from fastvae.utils.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 5, 6, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


@pytest.fixture(params=[np.savez, np.savez_compressed])
def save(request, tmp_path):
    def write(**given_arrays):
        request.param(tmp_path / "x.npz", **given_arrays)
        return tmp_path / "x.npz"

    return write


@pytest.mark.parametrize("order", ["C", "F"])
def test_one_array_is_split(save, order):
    train, test = read_npz(save(labels=np.arange(21), images=np.asarray(IMAGES, order=order)))
    assert torch.equal(test.images, EXPECTED[::10])
    assert torch.equal(train.images, EXPECTED[torch.arange(21) % 10 != 0])
    assert train.images.is_contiguous()


def test_two_arrays_are_the_splits(save):
    train, test = read_npz(save(x_train=IMAGES[:5], x_test=IMAGES[5:], y_train=np.arange(5)))
    assert torch.equal(train.images, EXPECTED[:5])
    assert torch.equal(test.images, EXPECTED[5:])


@pytest.mark.parametrize("order", ["C", "F"])
def test_stored_arrays_stay_in_the_file(tmp_path, monkeypatch, order):
    monkeypatch.setattr(arrays, "IN_MEMORY", 0)
    np.savez(tmp_path / "x.npz", first=np.arange(999), images=np.asarray(IMAGES, order=order))
    train, test = read_npz(tmp_path / "x.npz")
    assert isinstance(train, NumpySource)
    assert isinstance(train._array, np.memmap)
    assert torch.equal(pickle.loads(pickle.dumps(test)).read([2, 0]), EXPECTED[[20, 0]])
    assert torch.equal(train.read(range(18)), EXPECTED[torch.arange(21) % 10 != 0])


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_a_pickle_runs_no_code(tmp_path, save, refuses):
    array = np.empty(2, dtype=object)
    array[0] = Payload(tmp_path / "code-ran")
    with refuses("x.npz:images", "object"):
        read_npz(save(images=array))
    assert not (tmp_path / "code-ran").exists()


def test_refuses_what_are_no_images(save, refuses, tmp_path):
    with refuses("x.npz:only", "int64", "uint8"):
        read_npz(save(only=np.zeros((9, 4, 4), np.int64)))
    with refuses("x.npz", "several arrays", "numpy.savez"):
        read_npz(save(a=IMAGES, b=IMAGES))
    with refuses("x.npz:images", "1 image"):
        read_npz(save(images=IMAGES[:1]))
    with refuses("x.npz:train", "(3, 5, 6, 'uint8')", "x.npz:test", "(1, 5, 6, 'uint8')"):
        read_npz(save(train=IMAGES, test=IMAGES[..., 0]))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.txt", "")
    with refuses("x.npz", "nothing"):
        read_npz(tmp_path / "x.npz")


def test_refuses_a_header_that_announces_too_much(tmp_path, refuses):
    for announced in ((10**9, 100, 100), (20, 4, 4), (22, 4, 4)):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("images.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": announced})
            file.write(bytes(21 * 16))
        with refuses("x.npz:images", announced, "announces", "bytes"):
            read_npz(tmp_path / "x.npz")


def test_refuses_what_is_no_archive(tmp_path, refuses):
    with refuses(tmp_path / "none.npz", "No such file"):
        read_npz(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("text")
    with refuses(tmp_path / "text.npz", "not a usable .npz", "not a zip file", "numpy.savez"):
        read_npz(tmp_path / "text.npz")


@settings(max_examples=100)
@given(place=st.integers(0, 999), value=st.integers(0, 255), cut=st.integers(0, 40), packed=st.booleans())
def test_any_damage_is_read_or_refused(tmp_path_factory, place, value, cut, packed):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npz"
    (np.savez_compressed if packed else np.savez)(path, images=IMAGES[:4, :, :2], labels=np.arange(4))
    data = bytearray(path.read_bytes())
    data[place % len(data)] = value
    path.write_bytes(data[: len(data) - cut])
    try:
        read_npz(path)
        message = str(path)
    except InputError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message


def test_a_flipped_bit_is_refused(save, refuses):
    path = save(images=IMAGES)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with refuses(path, "not a usable .npz file"):
        read_npz(path)


def test_bombs_are_refused(tmp_path, refuses, monkeypatch):
    zeros = np.zeros((100, 100, 100), np.uint8)
    np.savez_compressed(tmp_path / "x.npz", images=zeros, unused=zeros)
    monkeypatch.setenv("FASTVAE_MAX_UNPACKED", "1M")
    read_npz(tmp_path / "x.npz")
    monkeypatch.setenv("FASTVAE_MAX_UNPACKED", "900K")
    with refuses("x.npz:images", "FASTVAE_MAX_UNPACKED"):
        read_npz(tmp_path / "x.npz")


def test_methods_that_numpy_does_not_use_are_refused(tmp_path, refuses):
    with (
        zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_BZIP2) as archive,
        archive.open("images.npy", "w") as file,
    ):
        np.save(file, IMAGES)
    with refuses("x.npz:images.npy", "method 12"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_that_were_joined_are_refused_and_padded_ones_read(tmp_path, refuses, save):
    path = tmp_path / "x.npz"
    save(path, images=np.zeros((4, 3, 3), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content + content)
    with refuses(path, "bytes come before its first array"):
        read_npz(path)
    path.write_bytes(content + b"rest")
    with refuses(path):
        read_npz(path)
    path.write_bytes(content + bytes(5000))
    assert read_npz(path)[0].shape == (3, 1, 3, 3)
    path.write_bytes(content[:-30])
    with refuses(path):
        read_npz(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path, refuses):
    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((4, 3, 3), np.uint8))
    with zipfile.ZipFile(path, "a") as archive, archive.open("images.npy", "w") as file:
        np.save(file, np.ones((4, 3, 3), np.uint8))
    with refuses(path, "two arrays named images.npy"):
        read_npz(path)
