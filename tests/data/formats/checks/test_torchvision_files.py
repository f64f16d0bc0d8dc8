"""Files that torchvision would unpack unseen."""

import bz2
import os
import zipfile

import numpy as np
import pytest
import torch

from fastvae.data.formats.checks import torchvision_files
from fastvae.data.formats.torchvision import read_torchvision


@pytest.fixture(autouse=True)
def _limit(monkeypatch):
    monkeypatch.setenv("FASTVAE_MAX_UNPACKED", "1M")


def test_usps_is_compared_with_its_published_sum(tmp_path, refuses, monkeypatch):
    for name in ("usps.bz2", "usps.t.bz2"):
        (tmp_path / name).write_bytes(bz2.compress(bytes(8 << 20)))
    with refuses(tmp_path / "usps.bz2", "MD5"):
        read_torchvision("torchvision:USPS", tmp_path)
    (tmp_path / "usps.bz2").unlink()
    os.mkfifo(tmp_path / "usps.bz2")
    with refuses(tmp_path / "usps.bz2", "MD5"):
        read_torchvision("torchvision:USPS", tmp_path)


@pytest.mark.parametrize(("kind", "name"), [("MNIST", "MNIST/processed/training.pt"), ("ImageNet", "meta.bin")])
def test_torchs_files_are_no_bombs(tmp_path, refuses, kind, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.zeros(4 << 20), path)
    torchvision_files.check_packed(kind, None, tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data/0", bytes(4 << 20))
    with refuses(path, "FASTVAE_MAX_UNPACKED"):
        read_torchvision(f"torchvision:{kind}", tmp_path)


def test_matlabs_files_are_no_bombs(tmp_path, refuses):
    scipy = pytest.importorskip("scipy.io")
    path = tmp_path / "stanford_cars" / "devkit" / "cars_meta.mat"
    path.parent.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, 2 << 20, dtype=np.uint8)
    scipy.savemat(path, {"noise": noise, "more": noise}, do_compression=True)
    torchvision_files.check_packed("StanfordCars", None, tmp_path)
    scipy.savemat(path, {"noise": noise[:100], "zeros": np.zeros(8 << 20, np.uint8)}, do_compression=True)
    with refuses(path, "FASTVAE_MAX_UNPACKED"):
        read_torchvision("torchvision:StanfordCars", tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    torchvision_files.check_packed("StanfordCars", None, tmp_path)  # scipy tells
    data = bytearray(path.read_bytes())
    data[140] ^= 255
    path.write_bytes(data)
    with refuses(path, "can't be read"):
        torchvision_files.check_packed("StanfordCars", None, tmp_path)


def test_hdf5_of_pcam_lies_in_its_file(tmp_path, refuses):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "pcam").mkdir()
    path = tmp_path / "pcam" / "camelyonpatch_level_2_split_train_x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (2, 4, 4, 3), "u1", external=[("/etc/passwd", 0, 96)])
    with refuses(path, "/etc/passwd", "h5repack"):
        read_torchvision("torchvision:PCAM", tmp_path)
