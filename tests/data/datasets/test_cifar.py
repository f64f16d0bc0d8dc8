"""CIFAR-10: both versions of its files, and that no file which isn't the published one can run code."""

import hashlib
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from fastvae.data import load

RECORD = 3073
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
PYTHON_FILES = [*NAMES, "batches.meta"]


def record(number):
    return bytes([9]) + ((np.arange(3072) + number) % 251).astype(np.uint8).tobytes()


def image(number):
    return torch.frombuffer(bytearray(record(number)[1:]), dtype=torch.uint8).view(3, 32, 32)


@pytest.fixture
def binary(tmp_path):
    """The binary version: sparse files, of which only each first and last record is written."""
    folder = tmp_path / "binary" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        with (folder / f"{name}.bin").open("wb") as file:
            file.write(record(2 * number))
            file.seek(RECORD * 9_999)
            file.write(record(2 * number + 1))
    return folder


def test_reads_the_binary_version(binary):
    data = load("cifar10", binary.parent)
    assert data.train.shape == (50_000, 3, 32, 32)
    assert data.test.shape == (10_000, 3, 32, 32)
    both = torch.cat([data.train.images, data.test.images])
    for number in range(6):
        assert torch.equal(both[10_000 * number], image(2 * number))
        assert torch.equal(both[10_000 * number + 9_999], image(2 * number + 1))
    assert not both[1].any()


def test_refuses_a_damaged_binary_version(binary, refuses):
    path = binary / "data_batch_3.bin"
    with path.open("r+b") as file:
        file.seek(RECORD)
        file.write(b"\x0a")
    for folder in (binary.parent, binary):
        with refuses(path, "label 10", "not CIFAR-10"):
            load("cifar10", folder)
    os.truncate(path, RECORD * 9_999)
    with refuses(path, RECORD * 9_999, "10000 records of 3073", "again"):
        load("cifar10", binary.parent)
    path.unlink()
    with refuses(path, "No such file", "again"):
        load("cifar10", binary.parent)
    path.mkdir()
    with refuses(path, "again"):
        load("cifar10", binary.parent)


@pytest.fixture
def python(tmp_path, monkeypatch):
    """The Python version with two images a file, whose MD5 sums torchvision takes for the published ones."""
    folder = tmp_path / "python" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        images = np.stack([image(2 * number + place).flatten().numpy() for place in (0, 1)])
        (folder / name).write_bytes(pickle.dumps({"data": images, "labels": [0, 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["plane", "car"]}))
    sums = [[name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name in PYTHON_FILES]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:6])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": sums[6][0], "key": "label_names", "md5": sums[6][1]})
    return folder


def check_python_version(data):
    assert torch.equal(data.train.images, torch.stack([image(number) for number in range(10)]))
    assert torch.equal(data.test.images, torch.stack([image(10), image(11)]))
    assert data.train.images.is_contiguous()


def test_reads_the_python_version(python):
    check_python_version(load("cifar10", python.parent))


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("name", PYTHON_FILES)
def test_a_tampered_file_runs_no_code(tmp_path, python, refuses, name):
    mark = tmp_path / "code-ran"
    (python / name).write_bytes(pickle.dumps(Payload(mark)))
    with refuses(python, "MD5", "again"):
        load("cifar10", python.parent)
    assert not mark.exists()
    pickle.loads((python / name).read_bytes())
    assert mark.exists()  # so the payload is live, and the test can fail


def test_published_sums_are_what_torchvision_checks(python, monkeypatch, refuses):
    monkeypatch.undo()  # back to the published sums: our two-image files are none of them
    with refuses(python, "MD5"):
        load("cifar10", python.parent)


def test_names_what_is_missing(tmp_path, refuses, monkeypatch):
    monkeypatch.setattr(CIFAR10, "download", lambda _: pytest.fail("downloaded unasked"))
    with refuses("cifar10", "cifar-10-batches-bin", "cifar-10-batches-py", tmp_path, "FASTVAE_DATA"):
        load("cifar10", tmp_path)


def test_downloads_into_the_cache_and_mends_it(tmp_path, python, serve, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(python, python.name)
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(packed.getvalue())
    monkeypatch.setattr(CIFAR10, "url", serve(tmp_path) + path.name)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(packed.getvalue()).hexdigest())
    check_python_version(load("cifar10"))
    cached = tmp_path / "cache/fastvae/cifar-10-batches-py"
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]
    (cached / "data_batch_2").write_bytes(b"cut")
    check_python_version(load("cifar10"))
    path.unlink()
    check_python_version(load("cifar10"))


def test_a_pipe_is_refused(binary, refuses):
    (binary / "test_batch.bin").unlink()
    os.mkfifo(binary / "test_batch.bin")
    with refuses("test_batch.bin", "named pipe"):
        load("cifar10", binary)
