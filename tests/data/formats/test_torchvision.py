"""The data sets of torchvision, as PNG files that lose nothing."""

import io
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from fastvae.data.formats.torchvision import TorchvisionPictures, read_torchvision


def pixels(data):
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


def test_reads_train_and_test(idx_folder, idx_bytes):
    folder = idx_folder("data", "MNIST/raw")
    for stem, count in (("train", 7), ("t10k", 2)):
        labels = idx_bytes(np.zeros(count, np.uint8))
        (folder / "MNIST" / "raw" / f"{stem}-labels-idx1-ubyte").write_bytes(labels)
    train, test = read_torchvision("torchvision:MNIST", folder)
    assert (len(train), len(test)) == (7, 2)
    counting = np.arange(7 * 15, dtype=np.uint8).reshape(7, 5, 3)
    assert np.array_equal([pixels(train.encoded(index)) for index in range(7)], counting)
    assert test.name(1) == "torchvision:MNIST train=False number 1"
    assert pickle.loads(pickle.dumps(train)).encoded(3) == train.encoded(3)


@pytest.fixture
def country(tmp_path):
    """Country211, which has its pictures in folders of splits."""
    for split in ("train", "test"):
        for number in range(3):
            path = tmp_path / "country211" / split / "XK" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 3), (number, 2, 3)).save(path)
    return tmp_path


def test_reads_splits_by_name(country, monkeypatch):
    train, test = read_torchvision("torchvision:Country211", country)
    assert (len(train), len(test)) == (3, 3)
    assert pixels(test.encoded(2)).tolist() == [[[2, 2, 3]] * 4] * 3
    monkeypatch.setenv("FASTVAE_DATA", str(country))
    assert len(read_torchvision("torchvision:Country211", None)[0]) == 3


def test_a_broken_picture_is_an_os_error(country):
    for number in (0, 1):
        (country / "country211" / "train" / "XK" / f"{number}.png").write_bytes(b"text")
    train, _ = read_torchvision("torchvision:Country211", country)
    with pytest.raises(OSError, match="cannot identify"):
        train.encoded(1)


@pytest.mark.parametrize(
    ("mode", "kept"), [("L", "L"), ("RGB", "RGB"), ("1", "RGB"), ("P", "RGB"), ("CMYK", "RGB"), ("RGBA", "RGB")]
)
def test_pictures_of_any_mode_are_grey_or_rgb(mode, kept):
    with Image.open(io.BytesIO(TorchvisionPictures([(Image.new(mode, (3, 2)), 0)], "x").encoded(0))) as picture:
        assert (picture.mode, picture.size) == (kept, (3, 2))


def test_pictures_are_turned_as_their_cameras_say():
    picture = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    picture.getexif()[0x0112] = 6  # turned by a quarter
    assert pixels(TorchvisionPictures([(picture, 0)], "x").encoded(0)).tolist() == [[3, 0], [4, 1], [5, 2]]


def test_fake_data_are_the_same_pictures():
    from torchvision.datasets import FakeData  # noqa: PLC0415

    fake = FakeData(2, (3, 5, 6))
    assert np.array_equal(pixels(TorchvisionPictures(fake, "x").encoded(1)), np.asarray(fake[1][0]))


@pytest.mark.parametrize("kind", ["FakeData", "LSUN", "ImageFolder", "Caltech101"])
def test_refuses_classes_without_splits(tmp_path, refuses, kind):
    with refuses(f"torchvision:{kind}", "no splits", "folder of its pictures"):
        read_torchvision(f"torchvision:{kind}", tmp_path)


@pytest.mark.parametrize("kind", ["SVHM", "mnist", "__name__", ""])
def test_refuses_unknown_classes(tmp_path, refuses, kind):
    with refuses(f"torchvision:{kind}", repr(kind), "torchvision:SVHN"):
        read_torchvision(f"torchvision:{kind}", tmp_path)


@pytest.mark.parametrize(("kind", "split"), [("CIFAR100", "train=True"), ("Country211", "split='train'")])
def test_says_how_to_get_what_is_missing(tmp_path, refuses, kind, split):
    call = f"torchvision.datasets.{kind}({str(tmp_path)!r}, {split}, download=True)"
    with refuses(f"torchvision:{kind}", call):
        read_torchvision(f"torchvision:{kind}", tmp_path)


def test_says_where_to_put_what_it_cannot_download(tmp_path, refuses):
    with refuses("torchvision:ImageNet: split=train", tmp_path, "put its files there"):
        read_torchvision("torchvision:ImageNet", tmp_path)


@pytest.mark.parametrize(("kind", "words"), [("EMNIST", "Unknown value 'train'"), ("PhotoTour", "argument: 'name'")])
def test_refuses_classes_that_want_more(tmp_path, refuses, kind, words):
    with refuses(f"torchvision:{kind}", words, "choose another data set"):
        read_torchvision(f"torchvision:{kind}", tmp_path)


def test_refuses_to_guess_the_folder(refuses, tmp_path):
    with refuses("torchvision:SVHN", "--data-dir", "FASTVAE_DATA"):
        read_torchvision("torchvision:SVHN", None)
    with refuses(tmp_path / "none", "no such folder"):
        read_torchvision("torchvision:SVHN", tmp_path / "none")


def test_refuses_what_gives_no_pictures(tmp_path, refuses):
    (tmp_path / "MovingMNIST").mkdir()
    np.save(tmp_path / "MovingMNIST" / "mnist_test_seq.npy", np.zeros((20, 2, 4, 4), np.uint8))
    with refuses("torchvision:MovingMNIST split=train", "Tensor", "not a picture"):
        read_torchvision("torchvision:MovingMNIST", tmp_path)


def test_a_picture_that_is_a_pipe_is_an_os_error(country):
    path = country / "country211" / "train" / "XK" / "1.png"
    path.unlink()
    os.mkfifo(path)
    train, _ = read_torchvision("torchvision:Country211", country)
    with pytest.raises(OSError, match="named pipe"):
        train.encoded(1)
