"""Which arrays of a file are the images."""

import numpy as np
import pytest

from fastvae.data.formats.arrays import choose_arrays

IMAGES, LABELS = np.zeros((9, 4, 4), np.uint8), np.zeros(9, np.int64)


@pytest.mark.parametrize(
    ("names", "picked"),
    [
        (["x_test", "y_test", "x_train", "y_train"], ("x_train", "x_test")),
        (["test", "train", "images"], ("train", "test")),
        (["train_images", "val_images", "test_images"], ("train_images", "test_images")),
        (["masks", "images"], ("images",)),
        (["y", "anything"], ("anything",)),
        (["y"], ("y",)),
        (["x_train", "y"], ("x_train",)),
    ],
)
def test_picks_by_name_then_by_shape(names, picked):
    assert choose_arrays("x", {name: LABELS if name.startswith("y") else IMAGES for name in names}, "") == picked


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, ["no array of images", "nothing"]),
        ({"a": LABELS, "b": LABELS}, ["no array of images", "a (9,) int64", "b (9,) int64"]),
        ({"a": IMAGES, "b": IMAGES}, ["several arrays", "a (9, 4, 4) uint8"]),
        ({"a": IMAGES[:0], "b": np.zeros((9, 4))}, ["no array of images", "(0, 4, 4)"]),
    ],
)
def test_refuses_to_guess(refuses, arrays, words):
    with refuses("x.npz", "name it", *words):
        choose_arrays("x.npz", arrays, "name it")
