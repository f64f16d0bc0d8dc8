"""`fastvae doctor` on made-up machines: its findings, its remedies and its exit status."""

import importlib.metadata
import re
from types import SimpleNamespace

import pytest
import torch

from fastvae import doctor
from fastvae.cli import run


@pytest.fixture(autouse=True)
def whole(monkeypatch):
    """A machine without a GPU that lacks nothing else."""
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.delenv("FASTVAE_DATA", raising=False)
    monkeypatch.setattr(doctor, "has_native", lambda: True)
    monkeypatch.setattr(doctor, "has_triton", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    exists = doctor.os.path.exists
    monkeypatch.setattr(doctor.os.path, "exists", lambda path: path != "/dev/nvidiactl" and exists(path))


def findings(capsys):
    """Run doctor; return its exit status and, by name, what it found and what it asks to mend."""
    status = run(["doctor"])
    rows = re.findall(r"^│ (.+?) +│ (.+?) *│ (.*?) *│$", capsys.readouterr().out, re.MULTILINE)
    return status, {name: (found, remedy) for name, found, remedy in rows}


def test_where_nothing_is_missing_it_succeeds(capsys):
    status, rows = findings(capsys)
    assert status == 0
    assert not any(remedy for _, remedy in rows.values())
    assert rows["GPU"][0] == "none: training runs on the CPU"
    assert rows["torch"][0] == importlib.metadata.version("torch")
    assert rows["FASTVAE_DATA"][0] == "not set: data sets are downloaded, digits is embedded"
    assert rows["CPU"][0].endswith(f", {torch.get_num_threads()} threads")


@pytest.mark.parametrize("kind", ["file", "nothing"])
def test_data_that_is_no_folder_is_to_mend(capsys, monkeypatch, tmp_path, kind):
    path = tmp_path / "data"
    if kind == "file":
        path.touch()
    monkeypatch.setenv("FASTVAE_DATA", str(path))
    status, rows = findings(capsys)
    assert status == 1
    assert rows["FASTVAE_DATA"] == (f"{path} is not a folder", "set it to a folder, or unset it")


def test_a_folder_of_data_is_shown(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTVAE_DATA", str(tmp_path))
    status, rows = findings(capsys)
    assert (status, rows["FASTVAE_DATA"]) == (0, (str(tmp_path), ""))


@pytest.mark.parametrize(
    ("missing", "name", "remedy"),
    [("has_native", "native (C++)", "install g++, then `make setup`"), ("has_triton", "triton", "pip install triton")],
)
def test_a_backend_that_is_missing_is_to_mend(capsys, monkeypatch, missing, name, remedy):
    monkeypatch.setattr(doctor, missing, lambda: False)
    status, rows = findings(capsys)
    assert status == 1
    assert rows[name][1] == remedy


def test_a_gpu_that_torch_cannot_use_is_to_mend(capsys, monkeypatch):
    monkeypatch.setattr(doctor.os.path, "exists", lambda path: True)
    status, rows = findings(capsys)
    assert status == 1
    assert rows["GPU"] == ("present, but torch cannot use it", "install torch's CUDA build and a matching driver")


def test_each_gpu_is_shown_with_its_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    memory = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: memory)
    monkeypatch.setattr(doctor, "device_name", lambda device: f"name of {device}")
    _, *gpus = doctor._devices()
    assert gpus == [(f"GPU {index}", f"name of cuda:{index}, 80 GiB", "") for index in (0, 1)]
