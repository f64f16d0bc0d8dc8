"""All loaders deliver the same pictures in the same order: shuffled, shared, stopped and gone on with."""

from itertools import chain

import pytest
import torch
from pictures import numbered, numbers, photographs

from fastvae.data import ResidentLoader
from fastvae.data.loaders.augment import Augment
from fastvae.data.loaders.dali import DaliLoader
from fastvae.data.loaders.torch_loader import TorchLoader
from fastvae.data.sources.decoded import DecodedSource
from fastvae.data.sources.tensor import read_all

COUNT, BATCH = 103, 8  # 13 steps, the last of 7
WORLDS = (1, 3)


def resident(pictures, **options):
    return ResidentLoader(read_all(pictures), **options)


def by_dali(pictures, **options):
    pytest.importorskip("nvidia.dali.fn")
    return DaliLoader(pictures, **options)


def by_workers(pictures, **options):
    return TorchLoader(pictures, workers=2, **options)


LOADERS = [
    resident,
    TorchLoader,
    pytest.param(by_workers, marks=pytest.mark.slow),
    by_dali,
]


@pytest.fixture(scope="module")
def pictures():
    return DecodedSource(numbered(COUNT), size=8)


@pytest.fixture(scope="module")
def expected(pictures):
    """The numbers of each rank's batches in two epochs, by the resident loader."""
    return {
        (world, rank): run(resident(pictures, batch_size=BATCH, seed=5, rank=rank, world_size=world))
        for world in WORLDS
        for rank in range(world)
    }


def run(loader, epochs=(0, 1)):
    found = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        found.append([(numbers(batch.images), batch.row_offset, batch.rows) for batch in loader])
    return found


def test_every_rank_has_its_own_part_of_one_order(expected):
    for epoch in (0, 1):
        whole = expected[1, 0][epoch]
        shares = [expected[3, rank][epoch] for rank in range(3)]
        for step, (ids, _, rows) in enumerate(whole):
            assert list(chain.from_iterable(share[step][0] for share in shares)) == ids
            assert len(ids) == rows
        order = list(chain.from_iterable(ids for ids, _, _ in whole))
        assert sorted(order) == list(range(COUNT))
        # Over all of the data, not within a window: the first batch comes from all quarters.
        assert len({number * 4 // COUNT for number in order[: 2 * BATCH]}) == 4
    assert expected[1, 0][0] != expected[1, 0][1]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("make", LOADERS)
def test_order_and_shares_are_the_same(pictures, expected, make, world):
    for rank in range(world):
        loader = make(pictures, batch_size=BATCH, seed=5, rank=rank, world_size=world)
        assert run(loader) == expected[world, rank]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("make", LOADERS)
def test_a_stop_in_an_epoch_leaves_out_nothing_and_repeats_nothing(pictures, expected, make, world):
    for rank in range(world):
        options = {"batch_size": BATCH, "seed": 5, "rank": rank, "world_size": world}
        first = make(pictures, **options)
        first.set_epoch(1)
        found = []
        for batch in first:
            found.append((numbers(batch.images), batch.row_offset, batch.rows))
            if len(found) == 5:
                break
        state = first.state_dict()
        assert state == {"epoch": 1, "step": 5}
        again = make(pictures, **options)
        again.load_state_dict(state)
        found += [(numbers(batch.images), batch.row_offset, batch.rows) for batch in again]
        assert found == expected[world, rank][1]
        # The one that was stopped can go on too.
        found[5:] = [(numbers(batch.images), batch.row_offset, batch.rows) for batch in first]
        assert found == expected[world, rank][1]


@pytest.mark.parametrize("make", LOADERS)
def test_a_share_may_be_empty(make):
    pictures = DecodedSource(numbered(5), size=8)
    loader = make(pictures, batch_size=4, seed=0, rank=0, world_size=3)
    assert [len(batch.images) for batch in loader] == [1, 0]
    assert [tuple(batch.images.shape[1:]) for batch in loader] == [(3, 8, 8)] * 2


@pytest.mark.parametrize("make", LOADERS)
@pytest.mark.parametrize("channels", [3, 1])
def test_pixels_are_the_same(make, channels):
    pictures = DecodedSource(photographs(24), size=40, channels=channels)
    augment = Augment(35, 40, flip=True, random_crop=True, seed=7)
    options = {"augment": augment, "batch_size": 10, "seed": 7}
    most, mean = 0, 0.0
    if make is by_dali:  # as its docstring has it
        of = {3: (4, 0.2), 1: (8, 0.25)} if torch.cuda.is_available() else {3: (0, 0.0), 1: (4, 0.02)}
        most, mean = of[channels]
    for left, right in zip(make(pictures, **options), resident(pictures, **options), strict=True):
        difference = (left.images.int() - right.images.int()).abs()
        assert difference.max() <= most
        assert difference.double().mean() <= mean
        assert left.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("make", LOADERS)
def test_the_first_are_the_middle_of_the_first(make):
    pictures = DecodedSource(photographs(5), size=40)
    augment = Augment(35, 40, flip=True, random_crop=True, seed=7)
    first = make(pictures, augment=augment, batch_size=2, seed=7).first(3)
    assert torch.equal(first, pictures.read(range(3))[:, :, 2:37, 2:37])


@pytest.mark.parametrize("make", LOADERS)
def test_a_bad_picture_ends_it_or_is_replaced_by_the_next(make):
    made = numbered(30)
    made.contents[7], made.contents[8], made.contents[20] = b"no picture", None, made.contents[20][:60]
    with pytest.raises(Exception, match=r"made/(7|8|20): cannot be decoded") as caught:
        run(make(DecodedSource(made, size=8), batch_size=4, seed=0), epochs=(0,))
    assert type(caught.value).__name__ == "InputError"
    found = run(make(DecodedSource(made, size=8, on_bad="skip"), batch_size=4, seed=0), epochs=(0, 1))
    for epoch in found:
        order = chain.from_iterable(ids for ids, _, _ in epoch)
        assert sorted(order) == sorted([*({*range(30)} - {7, 8, 20}), 9, 9, 21])
