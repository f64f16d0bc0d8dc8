"""The scripts in benchmarks/ find what they import and patch in fastvae: CI runs none of them."""

import importlib

import pytest

from fastvae.train.loop import Loop
from fastvae.train.optim.flat_gradients import FlatGradients


@pytest.mark.parametrize("name", ["beside_others", "data_parallel", "plot", "saving", "shapes", "train_presets"])
def test_a_script_can_be_imported(name, monkeypatch):
    monkeypatch.setattr(FlatGradients, "all_reduce", FlatGradients.all_reduce)  # data_parallel puts a clock around it
    assert callable(importlib.import_module(name).main)


def test_saving_finds_what_it_patches(monkeypatch):
    for name in ("_count", "_finish_epoch"):
        monkeypatch.setattr(Loop, name, getattr(Loop, name))
    before = Loop._count
    importlib.import_module("saving").Clock().install()
    assert Loop._count is not before
