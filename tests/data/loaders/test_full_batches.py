"""Full batches of a resident loader, which steps that are replayed as one graph take by themselves."""

import pytest
import torch

from fastvae.data import ResidentLoader

IMAGES = torch.arange(23).byte().view(-1, 1, 1, 1)


def values(batch):
    return batch.images.flatten().tolist()


@pytest.mark.parametrize(("batch_size", "full"), [(5, 4), (23, 1), (1, 23), (24, 0), (12, 1)])
def test_a_last_batch_that_is_smaller_is_not_among_them(batch_size, full):
    loader = ResidentLoader(IMAGES, batch_size=batch_size, seed=0)
    assert [loader.full_steps_left()] == [full]
    for step, batch in enumerate(loader, 1):
        assert loader.full_steps_left() == max(0, full - step)
        assert (len(batch.images) == batch_size) == (step <= full)


def test_taken_by_place_they_are_the_batches_of_the_epoch():
    loader, by_place = (ResidentLoader(IMAGES, batch_size=5, seed=3) for _ in range(2))
    expected = [values(batch) for batch in loader]
    found = [values(by_place.follow()) for _ in range(3)]
    by_place.skip(3)
    assert by_place.state_dict() == {"epoch": 0, "step": 3}
    assert by_place.full_steps_left() == 1
    assert found + [values(batch) for batch in by_place] == expected


def test_each_process_takes_its_rows_of_them():
    loaders = [ResidentLoader(IMAGES, batch_size=7, seed=3, rank=rank, world_size=3) for rank in range(3)]
    (whole, *_) = ResidentLoader(IMAGES, batch_size=7, seed=3)
    parts = [loader.follow() for loader in loaders]
    assert [value for part in parts for value in values(part)] == values(whole)
    assert [part.row_offset for part in parts] == [0, 2, 4]
    assert {part.rows for part in parts} == {7}
