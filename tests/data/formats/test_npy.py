"""A user's own .npy files: shapes, types, the split, and every refusal."""

import contextlib
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.data import load
from fastvae.data.formats.arrays import read_npy
from fastvae.utils.errors import InputError


@pytest.fixture
def saved(tmp_path):
    def save(array, name="images.npy"):
        np.save(tmp_path / name, array)
        return str(tmp_path / name)

    return save


def counting(*shape):
    return np.arange(np.prod(shape)).astype(np.uint8).reshape(shape)


@pytest.mark.parametrize(
    ("given_shape", "read_shape"),
    [
        ((21, 5, 6), (1, 5, 6)),
        ((21, 5, 3), (1, 5, 3)),
        ((21, 1, 5, 6), (1, 5, 6)),
        ((21, 3, 5, 6), (3, 5, 6)),
        ((21, 4, 5, 3), (4, 5, 3)),
        ((21, 5, 6, 1), (1, 5, 6)),
        ((21, 5, 6, 3), (3, 5, 6)),
        ((21, 5, 6, 4), (4, 5, 6)),
        ((21, 17), (1, 1, 17)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_every_layout(saved, given_shape, read_shape, order):
    array = counting(*given_shape)
    data = load(saved(np.asarray(array, order=order)))
    last = len(given_shape) == 4 and given_shape[1] not in (1, 3, 4)
    expected = torch.from_numpy(array.transpose(0, 3, 1, 2) if last else array).reshape(21, *read_shape)
    assert data.shape == read_shape
    assert data.train.images.is_contiguous()
    assert data.test.images.is_contiguous()
    assert torch.equal(data.test.images, expected[::10])
    assert torch.equal(data.train.images, expected[torch.arange(21) % 10 != 0])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", ">f8"])
def test_floats_become_fp32(saved, dtype):
    array = np.random.default_rng(0).normal(size=(12, 4, 4)).astype(dtype)
    data = load(saved(array))
    assert data.train.dtype == data.test.dtype == torch.float32
    expected = torch.from_numpy(array.astype(np.float32))[:, None]
    assert torch.equal(data.test.images, expected[::10])
    assert torch.equal(data.train[:9], expected[1:10])
    assert data.span == (float(expected.min()), float(expected.max()))


def test_bool_becomes_black_and_white(saved):
    array = np.random.default_rng(0).random((12, 4, 4)) < 0.5
    data = load(saved(array))
    assert torch.equal(data.train[-1, 0], torch.from_numpy(array[-1]).byte() * 255)
    assert data.test.dtype == torch.uint8
    assert data.span == (0.0, 1.0)


def test_the_file_is_only_read(saved):
    array = counting(20, 4, 4)
    path = saved(array)
    data = load(path)
    data.train.images.zero_()
    data.test.images.zero_()
    assert np.array_equal(np.load(path), array)


def test_the_home_folder_is_found(saved, tmp_path, monkeypatch):
    saved(counting(20, 4, 4))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/images.npy").shape == (1, 4, 4)


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint16", "complex64", "U3", "datetime64[s]", "i4,f4"])
def test_refuses_other_types(saved, refuses, dtype):
    path = saved(np.zeros((20, 4, 4), dtype))
    with refuses(path, np.dtype(dtype), "uint8", "float32"):
        load(path)


@pytest.mark.parametrize("shape", [(), (20,), (20, 5, 6, 2), (20, 2, 5, 6), (20, 1, 1, 5, 6)])
def test_refuses_other_shapes(saved, refuses, shape):
    path = saved(np.zeros(shape, np.uint8))
    with refuses(path, shape, "(N, C, H, W)"):
        load(path)


@pytest.mark.parametrize("shape", [(0, 5, 6), (20, 0, 6), (20, 3, 0, 6), (20, 0), (0, 0)])
def test_refuses_the_empty(saved, refuses, shape):
    path = saved(np.zeros(shape, np.float32))
    with refuses(path, shape, "no pixels"):
        load(path)


def test_refuses_too_few(saved, refuses):
    path = saved(counting(1, 4, 4))
    with refuses(path, "1 image", "at least 2"):
        load(path)
    data = load(saved(counting(2, 4, 4)))
    assert (len(data.train), len(data.test)) == (1, 1)


@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.parametrize("pixel", [np.nan, np.inf, -np.inf, 1e300])
def test_refuses_pixels_that_are_no_numbers(saved, refuses, place, pixel):
    array = np.zeros((20, 4, 4))
    array[place, 2, 2] = pixel
    path = saved(array)
    with refuses(path, "NaN or infinite", "nan_to_num"):
        load(path)


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_a_pickle_runs_no_code(tmp_path, saved, refuses):
    mark = tmp_path / "code-ran"
    array = np.empty(2, dtype=object)
    array[0] = Payload(mark)
    path = saved(array)
    with refuses(path, "object", "numpy.save"):
        load(path)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Payload(mark)))
    with refuses(tmp_path / "plain.npy", "is not an .npy file"):
        load(str(tmp_path / "plain.npy"))
    assert not mark.exists()


def test_refuses_images_of_differing_sizes(saved, refuses):
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros((2, 2)), np.zeros((3, 3))]
    path = saved(ragged)
    with refuses(path, "object", "all of one size", "numpy.save"):
        load(path)


def test_refuses_what_is_no_npy_file(tmp_path, refuses):
    np.savez(tmp_path / "images.npz", images=counting(20, 4, 4))
    (tmp_path / "renamed.npy").write_bytes((tmp_path / "images.npz").read_bytes())
    with refuses(tmp_path / "renamed.npy", "archive", "rename it to .npz", "numpy.save"):
        load(str(tmp_path / "renamed.npy"))
    (tmp_path / "text.npy").write_text("1,2,3")
    (tmp_path / "empty.npy").touch()
    for name in ("text.npy", "empty.npy"):
        with refuses(tmp_path / name, "is not an .npy file", "numpy.save"):
            load(str(tmp_path / name))


def test_refuses_what_cannot_be_read(tmp_path, refuses, monkeypatch):
    with refuses(tmp_path / "none.npy", "No such file"):
        load(str(tmp_path / "none.npy"))

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fastvae.utils.files.descriptor_of", denied)
    with refuses(tmp_path / "images.npy", "Permission denied"):
        load(str(tmp_path / "images.npy"))


def test_refuses_a_truncated_file(saved, refuses, tmp_path):
    path = saved(counting(20, 4, 4))
    data = (tmp_path / "images.npy").read_bytes()
    for size in (7, 9, 40, len(data) - 1):
        (tmp_path / "images.npy").write_bytes(data[:size])
        with refuses(path, "numpy.save"):
            load(path)


@settings(deadline=None, max_examples=150)
@given(place=st.integers(6, 127), value=st.integers(0, 255))
def test_any_damaged_header_is_read_or_refused(tmp_path_factory, place, value):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    np.save(path, counting(20, 4, 4))
    data = bytearray(path.read_bytes())
    data[place] = value
    path.write_bytes(data)
    message = str(path)
    with contextlib.suppress(UserWarning):  # numpy's own, for a header that only Python 2 could have written
        try:
            load(str(path))
        except InputError as error:
            message = str(error)
    assert str(path) in message
    assert "\n" not in message


def test_a_header_is_not_read_for_ever(tmp_path, refuses):
    with (tmp_path / "x.npy").open("wb") as file:
        file.write(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{")
        file.truncate(1 << 33)  # sparse
    with refuses(tmp_path / "x.npy", "not a usable .npy file"):
        load(str(tmp_path / "x.npy"))


def test_what_follows_the_array_is_not_left_out_in_silence(tmp_path, refuses):
    path = tmp_path / "several.npy"
    with path.open("wb") as file:  # as a loop of numpy.save does
        for _ in range(2):
            np.save(file, np.zeros((4, 3, 3), np.uint8))
    with refuses(path, "more arrays follow the first", "join them"):
        read_npy(path)
    whole = tmp_path / "whole.npy"
    np.save(whole, np.zeros((4, 3, 3), np.uint8))
    content = whole.read_bytes()
    whole.write_bytes(content + bytes(5000))  # padded
    assert read_npy(whole)[0].shape == (3, 1, 3, 3)
    whole.write_bytes(content + b"rest")
    with refuses(whole, "more bytes follow its array"):
        read_npy(whole)
