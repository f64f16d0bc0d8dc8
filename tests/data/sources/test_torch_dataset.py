"""Data sets of torch's as sources, and items that are not images."""

import pytest
import torch
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
        ([3], ("item 0", "int", "not a tensor (C, H, W)")),
        ([()], ("item 0", "tuple")),
        ([torch.zeros(4, 4)], ("item 0", "(4, 4)", "must be (C, H, W)")),
        ([torch.zeros(1, 4, 4, dtype=torch.float64)], ("item 0", "torch.float64", "uint8 or float32")),
        ([torch.zeros(1, 4, 4), torch.zeros(1, 4, 5)], ("item 1", "(1, 4, 5)", "(1, 4, 4)", "make them alike")),
        ([torch.zeros(1, 4, 4), torch.zeros(1, 4, 4).byte()], ("item 1", "torch.uint8", "torch.float32")),
    ],
)
def test_items_that_are_no_images_are_named(refuses, items, words):
    with refuses(*words):
        DatasetSource(items).read(range(len(items)))
