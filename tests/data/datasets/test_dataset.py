"""The doors of the data layer take tensors, and what is behind them is a source."""

import pytest
import torch
from caches import Made

from fastvae.data import Dataset, ResidentLoader, TensorSource, in_memory, load
from fastvae.data.datasets.own import own_dataset

IMAGES = torch.arange(21 * 12).byte().view(21, 1, 3, 4)


def test_span_is_of_both_splits_as_read_and_kept():
    images = torch.tensor([51, 102], dtype=torch.uint8).view(2, 1, 1, 1)
    data = Dataset("x", images, images * 2)
    assert data.span == (51 / 255, 204 / 255)
    assert data.span is data.span
    assert Dataset("x", images * 2 - 5.0, images.float()).span == (51.0, 199.0)


def test_a_tensor_becomes_a_source_without_a_copy():
    data = Dataset("mine", IMAGES, Made((2, 1, 3, 4)))
    assert isinstance(data.train, TensorSource)
    assert data.train.images is IMAGES
    assert isinstance(data.test, Made)
    assert in_memory(data.train) is IMAGES
    assert in_memory(IMAGES) is IMAGES
    assert torch.equal(in_memory(data.test), data.test.images)


def test_pixels_of_files_are_not_all_read_for_the_span():
    source = Made()
    assert Dataset("mine", source, source).span == (0.0, 1.0)
    assert source.reads == 0


def test_channels_last_is_for_what_is_in_memory():
    data = Dataset("mine", torch.zeros(3, 2, 4, 4), Made()).in_channels_last()
    assert data.train.images.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(data.test, Made)


def test_loaders_take_tensors_and_sources():
    expected = [batch.images for batch in ResidentLoader(IMAGES, batch_size=4, seed=0)]
    for images in (TensorSource(IMAGES), load_again()):
        found = [batch.images for batch in ResidentLoader(images, batch_size=4, seed=0)]
        assert all(map(torch.equal, found, expected))


def load_again():
    """The images as a source that is not in memory."""
    source = Made((21, 1, 3, 4))
    source.images = IMAGES
    return source


@pytest.mark.parametrize("whole", [IMAGES, TensorSource(IMAGES)])
def test_one_set_is_split_by_tenths_and_a_pair_is_not(whole):
    data = own_dataset(whole)
    assert torch.equal(data.test.images, IMAGES[::10])
    assert torch.equal(data.train.images, IMAGES[torch.arange(21) % 10 != 0])
    pair = own_dataset((IMAGES, IMAGES[:2]))
    assert (len(pair.train), len(pair.test), pair.name) == (21, 2, "your data set")


def test_refuses_what_are_no_images(refuses):
    with refuses("the images", "int64", "(21, 1, 3, 4)", ".to(torch.uint8)"):
        own_dataset(IMAGES.long())
    with refuses("the images for testing", "(0, 1, 3, 4)", "N >= 1"):
        own_dataset((IMAGES, IMAGES[:0]))
    with refuses("one type and one (C, H, W)"):
        own_dataset((IMAGES, IMAGES.float()))
    with refuses("your data set", "1 image", "at least 2"):
        own_dataset(IMAGES[:1])
    with refuses("(N, C, H, W)", "(3, 4)"):
        TensorSource(IMAGES[0, 0])
    assert load("digits").train[:2].shape == (2, 1, 8, 8)
