"""Crops and flips: drawn by seed, epoch and image alone."""

import pytest
import torch

from fastvae.data.loaders.augment import Augment
from fastvae.utils.philox import philox4x32

SEED = 2**40 + 11


def images(count, channels=3, side=9):
    return torch.arange(count * channels * side * side).view(count, channels, side, side)


def augment(**changes):
    return Augment(**{"size": 6, "resized": 9, "flip": True, "random_crop": True, "seed": SEED, **changes})


def test_places_are_those_of_the_image_in_any_batch():
    together = augment().places(3, torch.arange(50))
    alone = [augment().places(3, torch.tensor([index])) for index in range(50)]
    for part in range(3):
        assert torch.equal(together[part], torch.cat([places[part] for places in alone]))


def test_all_places_are_drawn_and_differ_between_epochs_and_seeds():
    indices = torch.arange(4000)
    top, left, flip = augment().places(0, indices)
    for draw in (top, left):
        counts = draw.bincount(minlength=4)
        assert len(counts) == 4
        assert (counts - 1000).abs().max() < 150
    assert (flip.sum() - 2000).abs() < 150
    together = torch.stack((top.double(), left.double(), flip.double()))
    assert (torch.corrcoef(together) - torch.eye(3)).abs().max() < 0.06
    for other in (augment().places(1, indices), augment(seed=SEED + 1).places(0, indices)):
        assert 500 < (other.top == top).sum() < 1500


def test_pixels_are_those_of_the_place():
    given, indices = images(20), torch.arange(100, 120)
    for layout in (torch.contiguous_format, torch.channels_last):
        cut = augment()(given.contiguous(memory_format=layout), 2, indices)
        assert cut.is_contiguous(memory_format=layout)
        for image, result, top, left, flip in zip(given, cut, *augment().places(2, indices), strict=True):
            expected = image[:, top : top + 6, left : left + 6]
            assert torch.equal(result, expected.flip(-1) if flip else expected)


def test_a_flip_alone_leaves_the_middle():
    top, left, flip = augment(random_crop=False).places(0, torch.arange(100))
    assert set(top.tolist()) == set(left.tolist()) == {1}
    assert 20 < flip.sum() < 80


def test_the_middle_for_evaluation():
    given = images(4)
    expected = given[:, :, 1:7, 1:7]
    assert torch.equal(augment().centred()(given, 5, torch.arange(4)), expected)
    assert torch.equal(augment().in_middle(given), expected)


@pytest.mark.parametrize(("size", "resized"), [(10, 9), (0, 9), (-1, 9)])
def test_sizes_are_checked(refuses, size, resized):
    with refuses(f"no {size} x {size} pixels", f"{resized} x {resized}"):
        augment(size=size, resized=resized)


def test_words_are_those_of_the_specification():
    """Reckoned anew, in integers."""
    index, epoch = 2**33 + 5, 7
    counter = [torch.tensor(word) for word in (5, 2, epoch, 2**31 + 2)]
    first, second, third, _ = (int(word) for word in philox4x32(counter, [torch.tensor(11), torch.tensor(2**8)]))
    expected = (first * 4 // 2**32, second * 4 // 2**32, third >= 2**31)
    assert tuple(int(part) for part in augment().places(epoch, torch.tensor([index]))) == expected


def test_none_at_all():
    assert augment()(images(0), 0, torch.arange(0)).shape == (0, 3, 6, 6)
