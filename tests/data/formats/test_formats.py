"""Choosing a format: folders of archives, and arrays that are held in memory."""

import io
import tarfile

import numpy as np
import pytest

from fastvae.data.formats import arrays, open_images
from fastvae.data.sources.tensor import TensorSource


def pack(path, names):
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))


def names(part):
    return [part.encoded(index).decode() for index in range(len(part))]


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    pack(folder / "b.tar", ["3.jpg", "4.jpg"])
    pack(folder / "a.tar", ["1.jpg", "2.jpg"])
    return folder


@pytest.mark.parametrize("hidden", [".cache/", ".DS_Store", "._a.png", ".a.tar"])
def test_hidden_files_beside_tars_are_nothing(shards, hidden):
    (shards / hidden).mkdir() if hidden.endswith("/") else (shards / hidden).touch()
    train, test = open_images(str(shards), None)
    assert names(test) == ["1.jpg"]
    assert names(train) == ["2.jpg", "3.jpg", "4.jpg"]


@pytest.mark.parametrize("other", ["notes.txt", "index.json"])
def test_other_files_beside_tars_are_nothing_either(shards, other):
    (shards / other).touch()
    assert sum(map(len, open_images(str(shards), None))) == 4


@pytest.mark.parametrize("other", ["folder/", "a.png"])
def test_folders_or_pictures_beside_tars_make_it_a_folder_of_pictures(shards, other):
    if other.endswith("/"):
        (shards / other).mkdir()
        (shards / other / "a.png").touch()
        (shards / other / "b.png").touch()
    else:
        (shards / other).touch()
        (shards / "b.png").touch()
    train, test = open_images(str(shards), None)
    assert [split.name(0).rpartition("/")[2] for split in (test, train)] == ["a.png", "b.png"]
    assert (len(train), len(test)) == (1, 1)


def test_both_splits_together_decide_what_fits_into_memory(tmp_path, monkeypatch):
    """Load 20 images of 100 bytes: 18 for training, 2 for testing."""
    np.save(tmp_path / "x.npy", np.zeros((20, 10, 10), np.uint8))
    for limit, held in ((2000, True), (1999, False), (1800, False)):
        monkeypatch.setattr(arrays, "IN_MEMORY", limit)
        found = open_images(str(tmp_path / "x.npy"), None)
        assert [len(split) for split in found] == [18, 2]
        assert [isinstance(split, TensorSource) for split in found] == [held] * 2


def test_the_bytes_of_floats_are_those_of_fp32(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros((20, 10, 10), np.float64))
    for limit, held in ((8000, True), (7999, False)):
        monkeypatch.setattr(arrays, "IN_MEMORY", limit)
        assert isinstance(open_images(str(tmp_path / "x.npy"), None)[0], TensorSource) == held


def test_a_gibibyte_is_held():
    assert arrays.IN_MEMORY == 2**30
