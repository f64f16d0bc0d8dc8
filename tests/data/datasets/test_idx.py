"""The IDX reader: what it reads, and every way in which a file can be wrong."""

import gzip
import os
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.data.datasets.idx import read_images
from fastvae.utils.errors import InputError

NAME = "train-images-idx3-ubyte"
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("packed", [False, True])
def test_reads_every_pixel(tmp_path, idx_bytes, packed):
    images = np.random.default_rng(1).integers(0, 256, (2_000, 28, 28), dtype=np.uint8)  # larger than one chunk
    path = tmp_path / (NAME + ".gz" * packed)
    path.write_bytes(gzip.compress(idx_bytes(images), 1) if packed else idx_bytes(images))
    read = read_images(path)
    assert read.dtype == torch.uint8
    assert read.is_contiguous()
    assert torch.equal(read, torch.from_numpy(images)[:, None])


def test_reads_a_strongly_packed_file(tmp_path, idx_bytes):
    images = np.zeros((4_000, 28, 28), np.uint8)
    path = tmp_path / f"{NAME}.gz"
    path.write_bytes(gzip.compress(idx_bytes(images)))
    assert read_images(path).shape == (4_000, 1, 28, 28)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda data: data[:-1], ["6 images of 5 x 3, 90 bytes", "89 follow"], id="one-byte-short"),
        pytest.param(lambda data: data[:40], ["90 bytes", "fewer follow"], id="far-too-short"),
        pytest.param(lambda data: data + b"\0", ["90 bytes", "more follow"], id="one-byte-long"),
        pytest.param(lambda data: data[:11], ["inside its header", "11 of 16"], id="header-cut"),
        pytest.param(lambda _: b"", ["magic number"], id="empty-file"),
        pytest.param(lambda data: b"\x89PNG" + data[4:], ["magic number is 0x89504e47", "0x00000803"], id="magic"),
        pytest.param(gzip.compress, ["magic number is 0x1f8b", "add .gz"], id="gzip-without-gz"),
        pytest.param(lambda data: b"\0\0\x0d" + data[3:], ["float32", "0x0d", "uint8"], id="element-type"),
        pytest.param(lambda data: b"\0\0\x07" + data[3:], ["unknown", "0x07"], id="unknown-type"),
        pytest.param(lambda data: data[:3] + b"\1" + data[4:], ["1 dimension", "labels", "images"], id="labels"),
        pytest.param(lambda data: data[:3] + b"\4" + data[4:], ["4 dimension"], id="four-dimensions"),
        pytest.param(lambda data: data[:4] + bytes(4) + data[8:16], ["no pixels", "0 images of 5 x 3"], id="empty-set"),
        pytest.param(lambda data: data[:8] + bytes(4) + data[12:], ["no pixels", "of 0 x 3"], id="no-height"),
        pytest.param(lambda data: data[:4] + b"\xff" * 12 + data[16:], ["fewer follow"], id="huge-announcement"),
    ],
)
def test_refuses_a_damaged_file(tmp_path, idx_bytes, refuses, damage, words):
    path = tmp_path / NAME
    path.write_bytes(damage(idx_bytes(IMAGES)))
    with refuses(path, *words):
        read_images(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda data: gzip.compress(data)[:-12], ["gzip", "download it again"], id="truncated"),
        pytest.param(lambda data: gzip.compress(data)[:-8], ["gzip"], id="checksum-missing"),
        pytest.param(lambda data: gzip.compress(data)[:5], ["gzip"], id="truncated-header"),
        pytest.param(lambda data: gzip.compress(data)[:-8] + bytes(8), ["gzip", "CRC"], id="wrong-checksum"),
        pytest.param(lambda data: gzip.compress(data)[:10] + b"\xff" * 20, ["gzip"], id="no-deflate"),
        pytest.param(lambda data: data, ["not a gzip file", "drop .gz"], id="not-gzip"),
        pytest.param(lambda _: b"", ["not a gzip file"], id="empty-file"),
        pytest.param(lambda data: gzip.compress(data[:-1]), ["90 bytes", "89 follow"], id="short-inside"),
        pytest.param(lambda data: gzip.compress(data + b"\0"), ["more follow"], id="long-inside"),
        pytest.param(
            lambda data: gzip.compress(data[:4] + struct.pack(">3I", 2**31, 2**15, 2**15)), ["fewer follow"], id="huge"
        ),
    ],
)
def test_refuses_a_damaged_gzip_file(tmp_path, idx_bytes, refuses, damage, words):
    path = tmp_path / f"{NAME}.gz"
    path.write_bytes(damage(idx_bytes(IMAGES)))
    with refuses(path, *words):
        read_images(path)


def test_refuses_what_is_no_readable_file(tmp_path, refuses, monkeypatch):
    with refuses(tmp_path / "none", "No such file"):
        read_images(tmp_path / "none")
    with refuses(tmp_path, "is a folder, not a regular file"):
        read_images(tmp_path)

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fastvae.utils.files.descriptor_of", denied)  # root, in a container, may read everything
    with refuses(tmp_path / NAME, "Permission denied"):
        read_images(tmp_path / NAME)


@settings(deadline=None, max_examples=150)
@given(place=st.integers(0, 105), value=st.integers(0, 255), cut=st.integers(0, 106), packed=st.booleans())
def test_any_damage_is_read_or_refused(tmp_path_factory, idx_bytes, place, value, cut, packed):
    data = bytearray(gzip.compress(idx_bytes(IMAGES)) if packed else idx_bytes(IMAGES))
    data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / f"fuzzed{'.gz' * packed}"
    path.write_bytes(data[: len(data) - cut])
    try:
        read, message = read_images(path), str(path)
    except InputError as error:
        read, message = torch.zeros(1, 1, 1, 1), str(error)
    assert str(path) in message
    assert "\n" not in message
    assert read.ndim == 4
    assert read.numel() > 0


def test_bombs_are_refused(tmp_path, idx_bytes, refuses, monkeypatch):
    path = tmp_path / f"{NAME}.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((1000, 50, 50), np.uint8))))
    monkeypatch.setenv("FASTVAE_MAX_UNPACKED", "3M")
    assert len(read_images(path)) == 1000
    monkeypatch.setenv("FASTVAE_MAX_UNPACKED", "2M")
    with refuses(path, "2,500,000", "FASTVAE_MAX_UNPACKED=1G"):
        read_images(path)


def test_more_than_memory_is_refused(tmp_path, refuses, monkeypatch):
    monkeypatch.setattr("fastvae.utils.machine.memory", lambda: 1 << 30)
    with (tmp_path / NAME).open("wb") as file:
        file.write(struct.pack(">BBBB3I", 0, 0, 8, 3, 1 << 21, 32, 32))
        file.truncate(16 + (1 << 31))
    with refuses(tmp_path / NAME, "GB of memory"):
        read_images(tmp_path / NAME)


def test_a_pipe_is_refused(tmp_path, refuses):
    for name in (NAME, f"{NAME}.gz"):
        os.mkfifo(tmp_path / name)
        with refuses(tmp_path / name, "named pipe"):
            read_images(tmp_path / name)
