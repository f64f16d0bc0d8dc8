"""The names of caches: those made by earlier versions stay valid."""

import os
from pathlib import Path

import pytest
import torch
from caches import Made
from pictures import numbered

from fastvae.data import DataConfig, Dataset, TensorSource, open_dataset
from fastvae.data.sources import cache_key as module
from fastvae.data.sources.cache_key import cache_key, folder_name
from fastvae.data.sources.decoded import DecodedSource


@pytest.fixture(autouse=True)
def _file(tmp_path, monkeypatch):
    """The file that the made pictures say they are in, as it was when the names below were taken down."""
    monkeypatch.chdir(tmp_path)
    Path("made").write_bytes(b"12345")
    os.utime("made", ns=(10**18, 10**18))


@pytest.mark.parametrize(
    ("count", "split", "data_dir", "on_bad", "name"),
    [
        (5, "train", None, "stop", "train-d182d5659f4685e0"),
        (2, "test", None, "stop", "test-92ff9788c23fbf1e"),
        (5, "train", Path("/srv/data"), "skip", "train-c3f3a539b45db544"),
        (2, "test", Path("/srv/data"), "skip", "test-4ed60e18edcad595"),
    ],
)
def test_pictures_keep_the_name_of_their_cache(count, split, data_dir, on_bad, name):
    source = DecodedSource(numbered(count), 8)
    assert folder_name(cache_key(source, split, "mine", data_dir, on_bad)) == name


@pytest.mark.parametrize(
    ("count", "split", "name"), [(4, "train", "train-8a6478d450edc645"), (4, "test", "test-67ce4f47b2c9f692")]
)
def test_arrays_keep_the_name_of_their_cache(monkeypatch, count, split, name):
    monkeypatch.setattr(module, "_stamp", lambda file: "1 2")
    assert folder_name(cache_key(Made((count, 3, 8, 8)), split, "other", None, "stop")) == name


def test_another_file_is_another_cache():
    source = DecodedSource(numbered(5), 8)
    before = folder_name(cache_key(source, "train", "mine", None, "stop"))
    os.utime("made", ns=(10**18, 10**18 + 1))
    assert folder_name(cache_key(source, "train", "mine", None, "stop")) != before


def test_open_dataset_caches_what_is_not_in_memory(tmp_path):
    own = Dataset("mine", DecodedSource(numbered(5), 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    opened = open_dataset(DataConfig(data="mine", cache=tmp_path / "images"), own)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["train-d182d5659f4685e0"]
    assert torch.equal(opened.train.read(range(5)), own.train.read(range(5)))
    assert isinstance(opened.test, TensorSource)
