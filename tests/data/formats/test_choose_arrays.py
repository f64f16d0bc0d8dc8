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


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("X_train", "y_train", "X_valid"), ("X_train", "X_valid")),
        (("Training/images", "dev/images", "test/images"), ("Training/images", "test/images")),
        (("cifar_train", "cifar_eval"), ("cifar_train", "cifar_eval")),
        (("x_test", "x_val", "x_training"), ("x_training", "x_test")),
    ],
)
def test_splits_by_any_name(names, expected):
    arrays = {name: np.zeros((4, 3, 3) if "y_" not in name else (4,), np.uint8) for name in names}
    assert choose_arrays("f", arrays, "mend it") == expected


def test_a_split_for_testing_alone_is_told_of(caplog):
    assert choose_arrays("f", {"x_test": np.zeros((4, 3, 3), np.uint8), "y": np.zeros(4)}, "mend it") == ("x_test",)
    assert caplog.messages == ["f: has no images for training, so those for testing, x_test, are trained on"]
