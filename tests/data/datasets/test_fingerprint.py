"""The fingerprint of images: the same wherever they lie, another where one of them changed."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fastvae.data import DataConfig, Dataset, open_dataset
from fastvae.data.datasets import fingerprint as module
from fastvae.data.datasets.fingerprint import fingerprint
from fastvae.data.datasets.load import check_there, located
from fastvae.utils.errors import InputError


def of(data, **settings):
    config = DataConfig(data=str(data), **settings)
    return fingerprint(open_dataset(config), str(data), resized=config.image_size is not None)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pics"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (9, 9), (6 * number, 0, 0)).save(folder / f"{number:02}.png")
    return folder


def test_pictures(pictures, tmp_path):
    before = of(pictures, image_size=8)
    assert of(pictures, image_size=6) == before
    moved = shutil.move(pictures, tmp_path / "elsewhere")
    assert of(moved, image_size=8) == before
    Image.new("RGB", (9, 9), (0, 7, 0)).save(f"{moved}/07.png")
    changed = of(moved, image_size=8)
    (tmp_path / "elsewhere" / "08.png").unlink()
    assert len({before, changed, of(moved, image_size=8)}) == 3


def test_of_many_pictures_the_sizes_of_files_tell(pictures, monkeypatch):
    monkeypatch.setattr(module, "_READ", 2)
    before = of(pictures, image_size=8)
    Image.new("RGB", (90, 90), (0, 7, 0)).save(pictures / "07.png")
    assert of(pictures, image_size=8) != before


@pytest.mark.parametrize("whole", [1 << 26, 1 << 10], ids=["small", "large"])
def test_a_file_of_arrays(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(module, "_WHOLE", whole)
    monkeypatch.setattr(module, "_PIECE", 1 << 8)
    images = np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8)
    np.save(tmp_path / "x.npy", images)
    before = of(tmp_path / "x.npy")
    assert of(tmp_path / "x.npy", image_size=6) == before  # resizing rounds as the machine does
    np.save(tmp_path / "y.npy", images)
    assert of(tmp_path / "y.npy") == before
    images[23, 1, 1] += 1
    np.save(tmp_path / "y.npy", images)
    assert of(tmp_path / "y.npy") != before


def test_images_in_memory():
    images = torch.arange(40 * 64).to(torch.uint8).view(40, 1, 8, 8)

    def own(train, test):
        return fingerprint(Dataset("own", train, test), None, resized=False)

    before = own(images, images[:4])
    assert own(images.contiguous(memory_format=torch.channels_last), images[:4]) == before
    assert (
        len({before, own(images.flip(0), images[:4]), own(images, images[:5]), own(images.float(), images[:4].float())})
        == 4
    )


def test_a_path_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    for name in ("digits", "torchvision:SVHN", ""):
        assert located(name) == name
    assert located("pics") == f"{tmp_path}/pics"
    assert located("x-{0..3}.tar") == f"{tmp_path}/x-{{0..3}}.tar"
    for name in ("digits", "pics", "x-{0..3}.tar", "x.h5:KEY"):
        check_there(name, "run")
    with pytest.raises(InputError, match="relative to the folder where it was started: name their place with --data"):
        check_there("gone", "run")
