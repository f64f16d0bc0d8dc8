"""The resident loader: every batch a pure function of (seed, epoch, step), for any number of processes."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.data import Batch, Loader, ResidentLoader, permutation
from fastvae.train.graphs.cuda_graphs import refusing_waits

COUNTS = st.integers(1, 60)
BATCH_SIZES = st.integers(1, 70)
SEEDS = st.integers(0, 2**63 - 1)
EPOCHS = st.integers(0, 5)


def numbered(count):
    """Images (count, 1, 1, 2) whose first pixel is their number."""
    return torch.stack([torch.arange(count), torch.zeros(count)], -1).byte().view(count, 1, 1, 2)


def loader(count, epoch=0, **options):
    made = ResidentLoader(numbered(count), **({"batch_size": 7, "seed": 1} | options))
    made.set_epoch(epoch)
    return made


def numbers(batch):
    return batch.images[:, 0, 0, 0].tolist()


def same(some, others):
    return len(some) == len(others) and all(
        torch.equal(a.images, b.images) and a[1:] == b[1:] for a, b in zip(some, others, strict=True)
    )


@settings(deadline=None)
@given(count=COUNTS, batch_size=BATCH_SIZES, seed=SEEDS, epoch=EPOCHS)
def test_an_epoch_is_the_permutation_in_batches(count, batch_size, seed, epoch):
    made = loader(count, epoch, batch_size=batch_size, seed=seed)
    batches = list(made)
    assert len(batches) == len(made)
    assert [batch.rows for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 <= batches[-1].rows <= batch_size
    assert all(batch.row_offset == 0 and len(batch.images) == batch.rows for batch in batches)
    assert list(itertools.chain(*map(numbers, batches))) == permutation(count, seed, epoch).tolist()


@settings(deadline=None)
@given(count=COUNTS, batch_size=BATCH_SIZES, world_size=st.integers(1, 9), shuffle=st.booleans(), epoch=EPOCHS)
def test_ranks_make_up_the_single_process_batch(count, batch_size, world_size, shuffle, epoch):
    options = {"batch_size": batch_size, "shuffle": shuffle}
    whole = list(loader(count, epoch, **options))
    ranks = [list(loader(count, epoch, rank=r, world_size=world_size, **options)) for r in range(world_size)]
    for batch, *shares in zip(whole, *ranks, strict=True):
        assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
        for rank, share in enumerate(shares):
            assert share.rows == batch.rows
            assert share.row_offset == rank * batch.rows // world_size
            assert len(share.images) == (rank + 1) * batch.rows // world_size - share.row_offset
            assert share.images.shape[1:] == (1, 1, 2)


@given(count=COUNTS, batch_size=BATCH_SIZES, epoch=EPOCHS)
def test_unshuffled_is_sequential(count, batch_size, epoch):
    batches = loader(count, epoch, batch_size=batch_size, shuffle=False)
    assert list(itertools.chain(*map(numbers, batches))) == list(range(count))


@settings(deadline=None)
@given(count=COUNTS, batch_size=BATCH_SIZES, epoch=EPOCHS, data=st.data())
def test_resumes_exactly(count, batch_size, epoch, data):
    whole = list(loader(count, epoch, batch_size=batch_size))
    delivered = data.draw(st.integers(0, len(whole)))
    stopped = loader(count, epoch, batch_size=batch_size)
    first = list(itertools.islice(stopped, delivered))
    state = stopped.state_dict()
    assert state == {"epoch": epoch, "step": delivered}
    resumed = loader(count, data.draw(EPOCHS), batch_size=batch_size)
    next(iter(resumed))
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    rest = list(resumed)
    assert same(first + rest, whole)
    assert resumed.state_dict() == {"epoch": epoch, "step": len(whole)}
    assert same(list(resumed), whole)  # the same epoch again


def test_the_state_inside_the_loop_names_the_next_step():
    made = loader(20)
    assert [made.state_dict()["step"] for _ in made] == [1, 2, 3]


def test_a_saved_end_of_an_epoch_has_nothing_left():
    made = loader(20)
    list(made)
    resumed = loader(20)
    resumed.load_state_dict(made.state_dict())
    assert list(resumed) == []
    resumed.load_state_dict(made.state_dict())
    resumed.set_epoch(1)
    assert same(list(resumed), list(loader(20, 1)))


def test_epochs_repeat_until_set_and_differ():
    made = loader(20)
    first = list(made)
    assert same(list(made), first)
    assert numbers(next(iter(made))) == numbers(first[0])
    made.set_epoch(1)
    assert list(itertools.chain(*map(numbers, made))) != list(itertools.chain(*map(numbers, first)))


def test_a_break_goes_on_and_its_end_starts_again():
    made = loader(20)
    whole = list(made)
    assert same([next(iter(made)) for _ in range(4)], [*whole, whole[0]])


def test_fetch_is_random_access():
    made = loader(20)
    whole = list(made)
    made.set_epoch(0)
    assert same([made.fetch(step) for step in (2, 0, 1)], [whole[2], whole[0], whole[1]])
    assert made.state_dict() == {"epoch": 0, "step": 0}


def test_batches_are_the_callers_own():
    made = loader(20, shuffle=False)
    for batch in made:
        batch.images.zero_()
    assert numbers(made.fetch(1)) == list(range(7, 14))


@pytest.mark.parametrize("images", [torch.rand(5, 3, 2, 4), torch.rand(5, 2, 4, 3).permute(0, 3, 1, 2)])
def test_images_keep_type_and_shape(images):
    (batch,) = ResidentLoader(images, batch_size=100, seed=0, shuffle=False)
    assert isinstance(batch, Batch)
    assert batch.images.dtype == torch.float32
    assert batch.images.stride() == images.stride()  # contiguous, or channels_last
    assert torch.equal(batch.images, images)


def test_satisfies_the_protocol():
    made: Loader = loader(3)
    assert all(hasattr(made, name) for name in Loader.__dict__ if not name.startswith("_"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, ["batch_size", "not 0"]),
        ({"batch_size": -3}, ["batch_size", "not -3"]),
        ({"rank": 2, "world_size": 2}, ["rank", "2 of 2"]),
        ({"rank": -1}, ["rank", "-1 of 1"]),
        ({"world_size": 0}, ["rank", "0 of 0"]),
        ({"seed": -1}, ["seed", "not -1"]),
        ({"seed": 2**63, "shuffle": False}, ["seed"]),
    ],
)
def test_refuses_numbers_out_of_range(refuses, options, words):
    with refuses(*words):
        loader(5, **options)


def test_refuses_what_does_not_exist(refuses):
    made = loader(20)
    for images in (torch.zeros(0, 1, 2, 2), torch.zeros(5, 4)):
        with refuses("(N, C, H, W)", tuple(images.shape)):
            ResidentLoader(images, batch_size=1, seed=0)
    for step in (-1, 3):
        with refuses("step", step):
            made.fetch(step)
    for step in (-1, 4):
        with refuses("step", step, "3 steps", "batch size"):
            made.load_state_dict({"epoch": 0, "step": step})
    with refuses("epoch"):
        made.set_epoch(-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_epoch_on_a_gpu_never_waits_and_is_the_same():
    made = loader(50, device="cuda")
    with refusing_waits():
        made.set_epoch(1)
        batches = list(made)
    assert same([batch._replace(images=batch.images.cpu()) for batch in batches], list(loader(50, 1)))


def test_an_epoch_that_was_followed_to_its_end_is_not_delivered_again():
    loader = ResidentLoader(torch.zeros(12, 1, 1, 1), batch_size=3, seed=0)
    loader.skip(4)
    assert list(loader) == []
    assert loader.state_dict() == {"epoch": 0, "step": 4}
    loader.set_epoch(1)
    assert len(list(loader)) == 4


def test_a_batch_larger_than_all_images_takes_no_memory_for_itself():
    loader = ResidentLoader(torch.arange(5).byte().view(5, 1, 1, 1), batch_size=10**12, seed=0, shuffle=False)
    assert [batch.images.flatten().tolist() for batch in loader] == [[0, 1, 2, 3, 4]]
    assert loader.full_steps_left() == 0
