"""Floats that rounding put outside of [0, 1] are taken, and no others are changed."""

import numpy as np
import pytest
import torch

from fastvae.data import load
from fastvae.data.sources.resize import middle_square
from fastvae.data.sources.tensor import without_rounding


def test_what_rounding_left_outside_is_brought_back():
    pixels = torch.tensor([1.0000001, 1.000009, -9e-6, -0.0, 0.5, 1.0])
    assert without_rounding(pixels).tolist() == [1, 1, 0, 0, 0.5, 1]
    outside = torch.tensor([1.0001, -0.0001, 255.0, -3.0])
    assert torch.equal(without_rounding(outside), outside)
    inside = torch.rand(5)
    assert without_rounding(inside) is inside
    assert without_rounding(torch.empty(0)).numel() == 0
    assert without_rounding(torch.tensor([255], dtype=torch.uint8)).tolist() == [255]


@pytest.mark.parametrize("size", range(5, 40))
def test_a_resize_leaves_floats_within_the_unit_interval(size):
    white = torch.zeros(2, 1, 40, 40)
    white[..., 7:] = 1
    resized = middle_square(white, size)
    assert 0 <= resized.min() <= resized.max() <= 1


@pytest.mark.parametrize("kind", ["float32", "float64", "float16"])
def test_arrays_are_read_within_the_unit_interval(tmp_path, kind):
    pixels = np.ones((30, 4, 4), kind)
    pixels[3] = np.nextafter(np.array(1, kind), np.array(2, kind)) if kind != "float16" else 1
    pixels[4] = -1e-7
    np.save(tmp_path / "over.npy", pixels)
    assert load(str(tmp_path / "over.npy")).span == (0.0, 1.0)
