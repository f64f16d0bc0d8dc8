"""Data sets of torch's as sources, and items that are not images."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from fastvae.data.loaders.torch_loader import TorchLoader
from fastvae.data.sources.torch_dataset import DatasetSource


def test_a_data_set_of_torchs_is_a_source():
    images = torch.randint(0, 256, (11, 3, 4, 5), dtype=torch.uint8)
    for dataset in (TensorDataset(images), TensorDataset(images, torch.arange(11)), list(images)):
        items = DatasetSource(dataset)
        assert items.shape == (11, 3, 4, 5)
        assert items.dtype == torch.uint8
        assert len(items) == 11
        assert torch.equal(items.read([4, 0, 4]), images[[4, 0, 4]])
        assert items.read([]).shape == (0, 3, 4, 5)
        loader = TorchLoader(items, batch_size=4, seed=0, shuffle=False)
        assert torch.equal(torch.cat([batch.images for batch in loader]), images)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], ("needs images", "0")),
        ([3], ("item 0", "int", "give a tensor (C, H, W)")),
        ([()], ("item 0", "tuple")),
        ([torch.zeros(1, 1, 4, 4)], ("item 0", "(1, 1, 4, 4)", "reshape it")),
        ([torch.zeros(1, 4, 0)], ("item 0", "(1, 4, 0)", "reshape it")),
        ([torch.zeros(1, 4, 4, dtype=torch.int64)], ("item 0", "torch.int64", ".to(torch.uint8)")),
        ([np.zeros((4, 4), "U3")], ("item 0", "<U3", "array of numbers")),
        ([torch.full((1, 4, 4), torch.nan)], ("item 0", "NaN")),
        ([{"a": torch.zeros(4, 4), "b": torch.zeros(4, 4)}], ("item 0", "a, b", "2 of them images")),
        ([{"label": 3}], ("item 0", "label", "0 of them images")),
        ([torch.zeros(1, 4, 4), torch.zeros(1, 4, 5)], ("item 1", "(1, 4, 5)", "(1, 4, 4)", "make them alike")),
        ([torch.zeros(1, 4, 4), torch.zeros(1, 4, 4).byte()], ("item 1", "torch.uint8", "torch.float32")),
    ],
)
def test_items_that_are_no_images_are_named(refuses, items, words):
    with refuses(*words):
        DatasetSource(items).read(range(len(items)))


COLOURS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (torch.zeros(4, 5), torch.zeros(1, 4, 5)),
        (torch.zeros(7), torch.zeros(1, 1, 7)),
        (torch.ones(2, 4, 5, dtype=torch.float64), torch.ones(2, 4, 5)),
        (torch.ones(2, 4, 5, requires_grad=True), torch.ones(2, 4, 5)),
        (torch.tensor([[True, False]]), torch.tensor([[[255, 0]]], dtype=torch.uint8)),
        (COLOURS, torch.from_numpy(COLOURS).permute(2, 0, 1)),
        (COLOURS.transpose(2, 0, 1), torch.from_numpy(COLOURS).permute(2, 0, 1)),
        (COLOURS[::-1], torch.from_numpy(COLOURS).flip(0).permute(2, 0, 1)),  # negative strides
        (COLOURS[:4, :4], torch.from_numpy(COLOURS[:4, :4].copy())),  # which may be 4 channels: taken as they are
        (np.ones((4, 5), ">f8"), torch.ones(1, 4, 5)),
        (np.array([[True]]), torch.tensor([[[255]]], dtype=torch.uint8)),
        (Image.fromarray(COLOURS), torch.from_numpy(COLOURS).permute(2, 0, 1)),
        (Image.fromarray(COLOURS[..., 0]), torch.from_numpy(COLOURS[None, ..., 0])),
        (Image.fromarray(COLOURS).convert("RGBA"), torch.from_numpy(COLOURS).permute(2, 0, 1)),
        (Image.fromarray(COLOURS[..., 0] > 99), torch.from_numpy(COLOURS[None, ..., 0] > 99).byte() * 255),
        ((torch.zeros(1, 4, 5), 3), torch.zeros(1, 4, 5)),
        ([np.zeros((4, 5), "f4"), "label", {}], torch.zeros(1, 4, 5)),
        ({"image": torch.zeros(1, 4, 5), "label": 3, "name": "a"}, torch.zeros(1, 4, 5)),
    ],
)
def test_items_as_people_have_them(item, expected):
    source = DatasetSource([item])
    found = source.read([0])[0]
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    assert torch.equal(pickle.loads(pickle.dumps(source)).read([0])[0], expected)


def test_pictures_of_any_size_become_one_size():
    source = DatasetSource([Image.fromarray(COLOURS), Image.fromarray(COLOURS[:, :9])], size=6)
    assert source.shape == (2, 3, 6, 6)
    assert source.read([0, 1]).shape == (2, 3, 6, 6)
