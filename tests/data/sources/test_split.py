"""Every tenth is for testing, of pictures as of arrays."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastvae.data.datasets.own import own_dataset
from fastvae.data.sources.split import split_pictures, train_test_indices


class Letters:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def encoded(self, index):
        return b"%d" % index

    def name(self, index):
        return str(index)

    def file(self, index):
        return b""


@given(count=st.integers(2, 200), every=st.integers(2, 12))
def test_splits_are_by_place_and_lose_nothing(count, every):
    train, test = train_test_indices(count, "", every)
    assert test.tolist() == list(range(0, count, every))
    assert sorted([*train, *test]) == list(range(count))
    assert train.tolist() == sorted(train)


def test_pictures_keep_their_names():
    train, test = split_pictures(Letters(13), "letters")
    assert [(test.name(i), test.encoded(i)) for i in range(len(test))] == [("0", b"0"), ("10", b"10")]
    assert [train.name(i) for i in range(len(train))] == [str(i) for i in range(13) if i % 10]


@pytest.mark.parametrize(("count", "words"), [(0, "no images"), (1, "1 image")])
def test_refuses_too_few(refuses, count, words):
    with refuses("letters", words, "at least 2"):
        split_pictures(Letters(count), "letters")


def test_every_tenth_is_the_rule_of_all():
    assert train_test_indices(21, "")[1].tolist() == [0, 10, 20]
    assert own_dataset(torch.arange(21).byte().view(21, 1, 1, 1)).test.images.flatten().tolist() == [0, 10, 20]
