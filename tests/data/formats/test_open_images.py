"""The one door: each name leads to its format, and each mistake to one line."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastvae.data import load
from fastvae.data.formats import open_images


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with twelve pictures, in every format that needs no more than torchvision; it is the current one."""
    monkeypatch.chdir(tmp_path)
    for folder in ("pictures", "shards", "nothing", "odd"):
        (tmp_path / folder).mkdir()
    array = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    for number, pixels in enumerate(array):
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        (tmp_path / "pictures" / f"{number:02}.png").write_bytes(data.getvalue())
        with tarfile.open(tmp_path / "shards" / f"x-{number // 6}.tar", "a") as archive:
            archive.add(tmp_path / "pictures" / f"{number:02}.png", f"{number:02}.png")
    (tmp_path / "shards" / "README.md").touch()
    (tmp_path / "odd" / "notes.md").touch()
    (tmp_path / "list.txt").write_text("".join(f"pictures/{number:02}.png\n" for number in range(12)))
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.NPZ.npz", images=array)
    (tmp_path / "x.NPZ.npz").rename(tmp_path / "x.NPZ")
    return torch.from_numpy(array).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "name",
    [
        "pictures",
        "shards",
        "shards/x-{0..1}.tar",
        "list.txt",
        "x.npy",
        "x.NPZ",
        "{}/pictures",
        "{}/shards/x-{{0..1}}.tar",
    ],
)
def test_every_format_has_the_same_images(place, tmp_path, name):
    data = load(name if "{}" not in name else name.format(tmp_path), size=8)
    train, test = (
        images if isinstance(images, torch.Tensor) else images.read(range(len(images)))
        for images in (data.train, data.test)
    )
    assert torch.equal(test, place[::10])
    assert torch.equal(train, place[torch.arange(12) % 10 != 0])


def test_one_archive_is_enough(place):
    train, test = open_images("shards/x-0.tar", None)
    assert (len(train), len(test)) == (5, 1)


def test_the_home_folder_is_found(place, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("~/pictures", "~/shards/x-{0..1}.tar", "~/list.txt"):
        assert len(open_images(name, None)[0]) == 10


@pytest.mark.parametrize("name", ["mnist", "unknown", "images.dat"])
def test_other_names_are_of_no_format(place, name):
    assert open_images(name, None) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", ["no picture", ".jpg"]),
        ("odd", ["no picture", ".tar archives alone"]),
        ("a/b", ["no such file or folder"]),
        ("~/none", ["no such file or folder"]),
        ("none.npy", ["No such file"]),
        ("none.npz", ["No such file"]),
        ("none.txt", ["No such file"]),
        ("none.tar", ["No such file"]),
        ("shards/x-{0..2}.tar", ["x-2.tar", "no such file"]),
        ("pictures/00.png", ["single picture", "folder"]),
        ("x.zip", ["packed (.zip)", "unpack"]),
        ("x.tar.gz", ["packed (.gz)", "unpack"]),
        ("x.parquet", ["suffix .parquet", ".npy, .npz, .h5"]),
        ("bare", ["suffix (none)"]),
    ],
)
def test_refuses_what_fits_nothing(place, refuses, name, words):
    for made in ("x.zip", "x.tar.gz", "x.parquet", "bare"):
        Path(made).touch()
    with refuses(Path(name).name.partition("{")[0], *words):
        open_images(name, None)


def test_a_mixed_folder_is_one_of_pictures(place, tmp_path):
    (tmp_path / "shards" / "a.png").touch()
    (tmp_path / "shards" / "b.png").touch()
    assert len(open_images("shards", None)[0]) == 1


@pytest.mark.parametrize("suffix", ["npy", "npz", "txt", "tar", "h5"])
def test_a_pipe_is_refused(tmp_path, refuses, suffix):
    if suffix == "h5":
        pytest.importorskip("h5py")
    os.mkfifo(tmp_path / f"x.{suffix}")
    with refuses(tmp_path / f"x.{suffix}", "is a named pipe, not a regular file"):
        open_images(str(tmp_path / f"x.{suffix}"), None)


@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_a_picture_that_is_a_pipe_or_a_device_is_refused(place, tmp_path, refuses, target):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "odd" / "0.png").symlink_to(target if target.startswith("/") else "../pipe")
    (tmp_path / "odd" / "1.png").symlink_to("../pictures/01.png")
    with refuses("odd/0.png", "cannot be decoded", "not a regular file"):
        load("odd", size=4).test.read([0])
