"""Images cut to their middle square and resized: at once in memory, else as they are read."""

import torch
from caches import Made

from fastvae.data.sources.resize import ResizedSource, middle_square, resized
from fastvae.data.sources.tensor import TensorSource, read_all


def test_a_vector_has_no_square(refuses):
    with refuses("1 x 7", "leave out --image-size"):
        ResizedSource(TensorSource(torch.zeros(2, 1, 1, 7)), 4)


def test_a_size_that_memory_cannot_hold_is_refused(refuses):
    with refuses("1000000 x 1000000", "GB of memory", "--image-size"):
        resized(TensorSource(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), 10**6)


def test_images_that_memory_cannot_hold_are_resized_when_they_are_read(refuses):
    large = resized(TensorSource(torch.zeros(10**6, 1, 2, 2, dtype=torch.uint8)), 10**4)
    assert isinstance(large, ResizedSource)
    assert large.read(range(1)).shape == (1, 1, 10**4, 10**4)
    with refuses("read into memory", "GB of memory"):
        read_all(large)


def test_memory_stays_memory_and_files_stay_files():
    images = Made((4, 1, 6, 8))
    small = resized(TensorSource(images.images), 3)
    lazy = resized(images, 3)
    assert isinstance(small, TensorSource)
    assert isinstance(lazy, ResizedSource)
    assert images.reads == 0
    assert torch.equal(lazy.read(range(4)), small.images)
    assert torch.equal(small.images, middle_square(images.images[..., 1:7], 3))


def test_nothing_is_done_for_the_size_that_they_have():
    source = TensorSource(torch.zeros(2, 1, 5, 5))
    assert resized(source, None) is source
    assert resized(source, 5) is source
