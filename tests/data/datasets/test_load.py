"""The door: names, folders, downloads."""

import gzip
import hashlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits

from fastvae.data import load
from fastvae.data.datasets import digits, mnist

COUNTING = torch.arange(7 * 15).view(7, 1, 5, 3).byte()


def test_digits_are_scikit_learns(tmp_path):
    data = load("digits", tmp_path / "ignored")
    images = torch.from_numpy(np.round(load_digits().images * 255 / 16)).byte()[:, None]
    assert torch.equal(data.test.images, images[::6])
    assert torch.equal(data.train.images, images[torch.arange(1797) % 6 != 0])
    assert data.name == "digits"
    assert data.shape == (1, 8, 8)
    assert data.span == (0.0, 1.0)


def test_digits_may_lie_elsewhere_in_scikit_learn(monkeypatch):
    there = load("digits")
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    assert torch.equal(load("digits").train.images, there.train.images)


@pytest.mark.parametrize(
    ("name", "layout"),
    [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw"), ("kmnist", "KMNIST/raw"), ("mnist", "")],
)
@pytest.mark.parametrize("packed", [False, True])
def test_reads_idx_folders(idx_folder, monkeypatch, name, layout, packed):
    folder = idx_folder(layout=layout, packed=packed)
    data = load(name, folder)
    assert torch.equal(data.train.images, COUNTING)
    assert torch.equal(data.test.images, COUNTING[:2])
    assert (data.name, data.shape) == (name, (1, 5, 3))
    monkeypatch.setenv("FASTVAE_DATA", str(folder))
    assert torch.equal(load(name).train.images, COUNTING)


def test_which_folder_and_which_file_win(idx_folder, monkeypatch):
    folder = idx_folder(start=1)
    monkeypatch.setenv("FASTVAE_DATA", str(idx_folder("other", start=2)))
    assert load("mnist", folder).train[0, 0, 0, 0] == 1
    assert load("mnist").train[0, 0, 0, 0] == 2
    idx_folder(layout="MNIST/raw", packed=True, start=3)  # torchvision's layout says which data set it is
    assert load("mnist", folder).train[0, 0, 0, 0] == 3
    (folder / "MNIST/raw/train-images-idx3-ubyte").mkdir()  # as one archive unpacks; the .gz beside it is the file
    assert load("mnist", folder).train[0, 0, 0, 0] == 3


@pytest.mark.parametrize("name", ["fashion-mnist", "kmnist"])
def test_refuses_the_images_of_another_set_that_has_the_same_file_names(name, idx_folder, refuses, monkeypatch):
    first = hashlib.sha256(COUNTING.numpy().tobytes()).hexdigest()
    monkeypatch.setitem(mnist._KNOWN, first, "mnist")
    folder = idx_folder()
    kind = mnist.CLASSES[name]
    with refuses("train-images-idx3-ubyte has the images of mnist", name, folder / kind / "raw", "use --data mnist"):
        load(name, folder)
    assert torch.equal(load("mnist", folder).train.images, COUNTING)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_as_data_are_told_the_two_flags(packed, idx_folder, refuses):
    folder = idx_folder(packed=packed)
    with refuses(folder, "IDX files", "--data mnist", "--data-dir"):
        load(str(folder))
    with refuses("is an IDX file", "--data mnist --data-dir"):
        load(str(next(folder.glob("train*"))))


def test_names_the_missing_file(idx_folder, refuses, monkeypatch):
    folder = idx_folder()
    (folder / "t10k-images-idx3-ubyte").unlink()
    for name, kind in (("mnist", "MNIST"), ("kmnist", "KMNIST")):
        with refuses(name, "no t10k-images-idx3-ubyte", folder / kind / "raw", "FASTVAE_DATA"):
            load(name, folder)
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda _: pytest.fail("downloaded unasked"))
    assert sorted(path.name for path in folder.rglob("*")) == ["train-images-idx3-ubyte"]


def test_refuses_folders_that_are_none(tmp_path, refuses, monkeypatch):
    (tmp_path / "file").touch()
    with refuses(tmp_path / "none", "no such folder", "--data-dir"):
        load("mnist", tmp_path / "none")
    monkeypatch.setenv("FASTVAE_DATA", str(tmp_path / "file"))
    for name in ("mnist", "cifar10"):
        with refuses(tmp_path / "file", "is a file, not a folder", "FASTVAE_DATA"):
            load(name)
    monkeypatch.setattr("os.access", lambda *_: False)
    with refuses(tmp_path, "may not be read"):
        load("mnist", tmp_path)


def test_refuses_two_image_sizes(idx_folder, idx_bytes, refuses):
    folder = idx_folder()
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((2, 5, 4), np.uint8)))
    with refuses(folder / "train-images", "5 x 3", folder / "t10k-images", "5 x 4"):
        load("mnist", folder)


@pytest.mark.parametrize("name", ["mnsit", "", "MNIST", "images.png", "cifar-10"])
def test_unknown_names_list_the_known(refuses, name):
    with refuses(repr(name), "digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "a folder of pictures"):
        load(name)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "cifar10"])
def test_a_failed_download_is_one_line(tmp_path, refuses, monkeypatch, name):
    kind = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10"}[name]
    monkeypatch.setattr(getattr(torchvision.datasets, kind), "mirrors", ["http://127.0.0.1:9/"], raising=False)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    start = time.perf_counter()
    with refuses(name, tmp_path / "cache/fastvae", "Connection refused", "FASTVAE_DATA"):
        load(name)
    assert time.perf_counter() - start < 5
    assert list((tmp_path / "cache/fastvae").iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, refuses):
    (tmp_path / "cache").touch()
    with refuses("mnist", tmp_path / "cache/fastvae", "Not a directory", "FASTVAE_DATA"):
        load("mnist")


@pytest.fixture
def mirror(idx_folder, serve, monkeypatch):
    """A mirror of MNIST on this machine."""
    folder = idx_folder("mirror", packed=True)
    for stem in ("train", "t10k"):
        labels = folder / f"{stem}-labels-idx1-ubyte.gz"
        labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 5])))
    sums = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(folder.iterdir())]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [serve(folder)])
    return folder


@pytest.mark.parametrize("home", [False, True])
def test_downloads_once_into_the_cache(tmp_path, mirror, monkeypatch, home):
    cache = tmp_path / "cache"
    if home:
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the XDG specification has ignored
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        cache = tmp_path / "home/.cache"
    monkeypatch.setenv("FASTVAE_DATA", "")
    assert torch.equal(load("mnist").train.images, COUNTING)
    raw = cache / "fastvae/MNIST/raw"
    assert sorted(path.name for path in raw.glob("*images*")) == ["t10k-images-idx3-ubyte", "train-images-idx3-ubyte"]
    assert [path.name for path in (cache / "fastvae").iterdir()] == ["MNIST"]
    for path in mirror.iterdir():
        path.unlink()
    assert torch.equal(load("mnist").test.images, COUNTING[:2])


def test_a_tampered_download_is_refused(tmp_path, mirror, refuses):
    (mirror / "train-images-idx3-ubyte.gz").write_bytes((mirror / "t10k-images-idx3-ubyte.gz").read_bytes())
    with refuses("mnist", "corrupted", "FASTVAE_DATA"):
        load("mnist")
    assert list((tmp_path / "cache/fastvae").iterdir()) == []


def test_importing_and_the_digits_are_light():
    code = (
        "import sys, torch, fastvae.data; fastvae.data.load('digits'); "
        "sys.exit(sorted({'sklearn', 'torchvision', 'matplotlib', 'scipy'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
