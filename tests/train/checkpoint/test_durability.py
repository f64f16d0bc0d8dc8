"""The order in which a file becomes durable: fsync of its content, rename, fsync of its folder."""

import os
from pathlib import Path

import pytest
import torch

from fastvae.train.checkpoint import checkpoint
from fastvae.train.checkpoint.best import FILE, Best
from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.train.report.figures import write_image
from fastvae.utils.files import write_text


@pytest.fixture
def events(monkeypatch):
    """Record every fsync, with the bytes that its file has by then, and every rename, in order."""
    found, sync, replace = [], os.fsync, os.replace

    def synced(file):
        descriptor = file if isinstance(file, int) else file.fileno()
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        found.append(("sync", path, 0 if path.is_dir() else os.fstat(descriptor).st_size))
        sync(descriptor)

    def replaced(source, target, **options):
        replace(source, target, **options)
        found.append(("name", Path(source), Path(target)))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "fdatasync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "rename", replaced)
    return found


def assert_durable(events, path):
    """Check that the last three are an fsync under another name, the rename, and an fsync of the folder."""
    content, name, folder = events[-3:]
    assert content[0] == "sync"
    assert content[1].parent == path.parent
    assert content[1] != path
    assert content[2] == path.stat().st_size > 0
    assert name == ("name", content[1], path)
    assert folder == ("sync", path.parent, 0)


SAVED = Checkpoint({"model.a": torch.randn(3, 4)}, {"step": 5})


def test_each_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, events):
    for step in range(1, checkpoint.KEEP + 1):
        assert_durable(events, checkpoint.save(tmp_path, step, SAVED))
        assert len(events) == 3
        events.clear()
    path = checkpoint.save(tmp_path, 9, SAVED)  # which is written over the oldest
    moved, *rest = events
    assert moved == ("name", tmp_path / "step-000000001.safetensors", path.with_suffix(".partial"))
    assert_durable(rest, path)
    assert len(rest) == 3


def test_the_best_weights_too(tmp_path, events):
    best = Best()
    best.offer(1.5, 1, 12, lambda: {"model.a": torch.ones(3)})
    best.save(tmp_path)
    assert_durable(events, tmp_path / FILE)


def test_texts_and_pictures_too(tmp_path, events):
    write_text(tmp_path / "config.json", "{}\n")
    assert_durable(events, tmp_path / "config.json")
    assert len(events) == 3
    write_image(torch.rand(3, 4, 4), tmp_path / "samples.png")
    assert_durable(events, tmp_path / "samples.png")
    assert len(events) == 6
