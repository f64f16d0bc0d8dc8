"""The way of a batch, from a DataConfig down to the loaders: nothing of it climbs back up to the trainer or a model."""

import importlib.util
from pathlib import Path

import pytest
import torch

from fastvae.data import DataConfig, Dataset, make_loaders, open_dataset, permutation

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def imports():
    """The scan of ``tests/test_imports.py``."""
    spec = importlib.util.spec_from_file_location("imports_of_all", ROOT / "tests" / "test_imports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_module_of_the_data_layer_imports_the_trainer_or_a_model(imports):
    for path in (ROOT / "fastvae" / "data").glob("**/*.py"):
        used = imports.imports_of(path.read_text(), imports.module_of(path), path.name == "__init__.py")
        assert {name.partition(".")[0] for name in used} <= {"data", "utils"}, path


def test_a_bare_configuration_is_enough_to_train(imports):
    code = """
import sys, torch
from fastvae.data import DataConfig, make_loaders, open_dataset
config = DataConfig(data="digits", image_size=8)
loaders = make_loaders(config, open_dataset(config), batch_size=100, seed=0)
assert sum(len(batch.images) for batch in loaders.train) == 1497
print(sorted(name for name in sys.modules if name.startswith(("fastvae.train", "fastvae.models", "fastvae.nn"))))
"""
    assert imports.python(code) == "[]"


def test_an_epoch_has_the_images_in_the_order_of_its_seed_and_number():
    config = DataConfig(data="digits")
    dataset = open_dataset(config)
    loaders = make_loaders(config, dataset, batch_size=100, seed=3)
    for epoch in (0, 1):
        loaders.train.set_epoch(epoch)
        delivered = torch.cat([batch.images for batch in loaders.train])
        assert torch.equal(delivered, dataset.train[permutation(1497, 3, epoch)])
    assert torch.equal(torch.cat([batch.images for batch in loaders.test]), dataset.test[:])


def test_processes_share_each_batch():
    config = DataConfig(data="digits")
    dataset = open_dataset(config)
    whole = next(iter(make_loaders(config, dataset, batch_size=10, seed=0).train))
    parts = [
        next(iter(make_loaders(config, dataset, batch_size=10, seed=0, rank=rank, world_size=3).train))
        for rank in range(3)
    ]
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert [part.row_offset for part in parts] == [0, 3, 6]


def test_images_of_ones_own_are_resized_and_cropped():
    own = Dataset("mine", torch.zeros(6, 1, 10, 10).byte(), torch.full((2, 1, 10, 10), 7).byte())
    config = DataConfig(image_size=7, crop="random", flip=True)
    dataset = open_dataset(config, own)
    assert (dataset.name, dataset.train.shape, dataset.shape) == ("mine", (6, 1, 8, 8), (1, 7, 7))
    loaders = make_loaders(config, dataset, batch_size=4, seed=0)
    assert [tuple(batch.images.shape) for batch in loaders.train] == [(4, 1, 7, 7), (2, 1, 7, 7)]
    assert torch.equal(next(iter(loaders.test)).images, torch.full((2, 1, 7, 7), 7).byte())


def test_channels_last_is_asked_for_in_one_place():
    own = Dataset("mine", torch.zeros(6, 3, 10, 10), torch.ones(2, 3, 10, 10))
    for channels_last in (False, True):
        dataset = open_dataset(DataConfig(), own, channels_last=channels_last)
        loader = make_loaders(DataConfig(), dataset, batch_size=4, seed=0).train
        images = next(iter(loader)).images
        assert images.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_flips_need_squares(refuses):
    own = Dataset("mine", torch.zeros(6, 1, 4, 5), torch.ones(2, 1, 4, 5))
    config = DataConfig(flip=True)
    with refuses("--flip and --crop", "4 x 5", "--image-size"):
        make_loaders(config, open_dataset(config, own), batch_size=4, seed=0)


def test_importing_the_data_layer_loads_no_torchvision(imports):
    assert imports.python("import sys, fastvae.data; print('torchvision' in sys.modules)") == "False"
