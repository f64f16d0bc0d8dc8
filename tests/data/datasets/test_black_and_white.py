"""Pixels 0 and 1 in uint8, as dSprites has them, are black and white."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastvae.data import load
from fastvae.data.formats import arrays

SHAPES = np.zeros((60, 8, 8), np.uint8)
SHAPES[:, 2:5, 3:6] = 1
TOLD = "only 0 and 1, in uint8: they are read as black and white"


@pytest.mark.parametrize("is_small", [True, False])
@pytest.mark.parametrize("form", ["npy", "npz", "packed"])
def test_zeros_and_ones_are_black_and_white_and_it_is_said(tmp_path, caplog, monkeypatch, is_small, form):
    if not is_small:
        monkeypatch.setattr(arrays, "IN_MEMORY", 0)
    path = tmp_path / ("shapes.npy" if form == "npy" else "shapes.npz")
    if form == "npy":
        np.save(path, SHAPES)
    else:  # as dSprites' file is made
        save = np.savez if form == "npz" else np.savez_compressed
        save(path, imgs=SHAPES, latents_classes=np.zeros((60, 6), np.int64), metadata=np.array({"a": 1}, dtype=object))
    data = load(str(path))
    assert data.train.read([0, 5]).unique().tolist() == [0, 255]
    assert data.test.read([0]).sum() == 9 * 255
    assert (data.train.shape, data.train.dtype) == ((54, 1, 8, 8), torch.uint8)
    assert [TOLD in message for message in caplog.messages] == [True]
    resized = load(str(path), size=4)  # after they became white, so that a grey edge is not rounded to black
    assert len(resized.train.read(range(54)).unique()) > 2


@pytest.mark.parametrize("change", [(0, 2), (59, 255), (10, 3)])
def test_one_larger_pixel_in_either_split_is_enough(tmp_path, caplog, change):
    pixels = SHAPES.copy()
    pixels[change[0], 0, 0] = change[1]
    np.save(tmp_path / "grey.npy", pixels)
    assert load(str(tmp_path / "grey.npy")).train.read([1])[0].max() == 1
    assert caplog.messages == []


def test_black_images_stay_black_and_floats_stay_as_they_are(tmp_path, caplog):
    np.save(tmp_path / "black.npy", np.zeros((20, 4, 4), np.uint8))
    np.save(tmp_path / "floats.npy", SHAPES.astype("float32"))
    assert load(str(tmp_path / "black.npy")).span == (0.0, 0.0)
    assert load(str(tmp_path / "floats.npy")).span == (0.0, 1.0)
    assert caplog.messages == []


def test_pictures_of_zeros_and_ones_are_told_of(tmp_path, caplog):
    for number in range(20):
        Image.fromarray(SHAPES[number]).save(tmp_path / f"{number:02}.png")
    load(str(tmp_path), size=8)
    assert ["all but black: multiply them by 255" in message for message in caplog.messages] == [True]
    caplog.clear()
    Image.fromarray(SHAPES[0] * 255).save(tmp_path / "01.png")
    load(str(tmp_path), size=8)
    assert caplog.messages == []
