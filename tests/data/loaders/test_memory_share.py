"""The share of the free memory that a resident data set may take."""

import pytest
import torch

from fastvae.data.loaders import choose
from fastvae.data.loaders.choose import choose_loader
from fastvae.data.sources.tensor import TensorSource
from fastvae.utils.errors import InputError

CPU, SIZE = torch.device("cpu"), 10 * 3 * 8 * 8  # bytes of the images


class Images:
    """A source of 10 images that are not in memory."""

    shape = (10, 3, 8, 8)
    dtype = torch.uint8

    def __len__(self):
        return 10

    def read(self, indices):
        return torch.zeros(len(indices), *self.shape[1:], dtype=self.dtype)


@pytest.mark.parametrize(("device", "share"), [("cpu", 4), ("cuda", 2)])
def test_images_are_resident_up_to_a_share_of_what_is_free(monkeypatch, device, share):
    for free, name in ((share * SIZE, "resident"), (share * SIZE - 1, "torch")):
        monkeypatch.setattr(choose, "_free", lambda device, free=free: free)
        choice = choose_loader("auto", Images(), torch.device(device))
        assert choice.name == name
        assert str(choice) == f"{name} (0.00 GB of images, 0.00 GB free on {device})"


def test_bytes_are_those_of_the_type(monkeypatch):
    monkeypatch.setattr(choose, "_free", lambda device: 4 * SIZE)
    floats = Images()
    floats.dtype = torch.float32
    assert choose_loader("auto", floats, CPU).name == "torch"


def test_asked_for_they_may_take_all_of_it(monkeypatch):
    monkeypatch.setattr(choose, "_free", lambda device: SIZE)
    assert choose_loader("resident", Images(), CPU).name == "resident"
    monkeypatch.setattr(choose, "_free", lambda device: SIZE - 1)
    with pytest.raises(InputError, match=r"--loader resident does not fit: 0\.00 GB of images, .*: use --loader auto"):
        choose_loader("resident", Images(), CPU)


def test_what_is_in_memory_already_stays_there(monkeypatch):
    monkeypatch.setattr(choose, "_free", lambda device: 0)
    assert choose_loader("auto", TensorSource(torch.zeros(10, 3, 8, 8)), CPU).name == "resident"


def test_sizes_are_told_in_decimal_gigabytes(monkeypatch):
    monkeypatch.setattr(choose, "_free", lambda device: 12_345_000_000)
    large = Images()
    large.shape = (10**6, 3, 40, 40)
    assert choose_loader("auto", large, CPU).reason == "4.80 GB of images, 12.35 GB free on cpu"
