"""A run's state and the checkpoint that holds it."""

import pytest
import torch

from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.train.config import Origin
from fastvae.train.run_state import RunState, refusing_foreign, restore
from fastvae.utils.errors import InputError


def state(**changes):
    settings = {
        "step": 12,
        "epoch": 1,
        "loader": {"epoch": 1, "step": 2},
        "best": {"loss": 1.5, "epoch": 1},
        "batch_size": 7,
        "origin": Origin(),
        "meter": {"seconds": 2.0, "images": 20},
        "sums": torch.arange(4.0).double(),
        "nonfinite": torch.zeros(5).double(),
        "engine": Checkpoint(
            {"noise": torch.tensor([0, 12])}, {"optimizer": {"scalars": {}, "groups": []}, "scaler": {}}
        ),
        "rng": {"generator.cpu": torch.zeros(1, 3, dtype=torch.uint8)},
    }
    return RunState(**{**settings, **changes})


def test_a_checkpoint_gives_the_state_again():
    found = restore(state().to_checkpoint(), images=64, batch_size=7)
    for name in ("step", "epoch", "loader", "best", "meter", "batch_size", "origin"):
        assert getattr(found, name) == getattr(state(), name)
    assert torch.equal(found.sums, state().sums)
    assert torch.equal(found.nonfinite, state().nonfinite)
    assert found.engine.tensors["noise"].tolist() == [0, 12]
    assert "generator.cpu" in found.rng


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 11},
        {"step": -1},
        {"epoch": 2},
        {"loader": {"epoch": 0, "step": 2}},
        {"sums": torch.zeros(2)},
        {"meter": {}},
        {"batch_size": 9},
        {"batch_size": 0},
        {"origin": Origin(0, 1)},
        {"step": 21, "loader": {"epoch": 1, "step": 11}},
    ],
)
def test_what_is_not_of_one_moment_is_refused(changes):
    with pytest.raises(InputError, match="checkpoint"):
        restore(state(**changes).to_checkpoint(), images=64, batch_size=7)


def test_torchs_errors_become_one_line():
    with pytest.raises(InputError, match=r"cannot resume from the checkpoint .*no such key"), refusing_foreign():
        raise KeyError("no such key")


@pytest.mark.parametrize(
    ("batch_size", "place", "origin"),
    [
        (7, 2, Origin()),  # 64 images in 10 steps: 2 of epoch 1 are 14 images
        (14, 1, Origin(1, 11)),
        (2, 7, Origin(1, 5)),
        (5, 2, Origin(1, 10)),  # 4 images of the next batch were seen
        (64, 0, Origin(1, 12)),
        (1, 14, Origin(1, -2)),
    ],
)
def test_another_batch_size_goes_on_with_the_next_image(batch_size, place, origin):
    found = restore(state().to_checkpoint(), images=64, batch_size=batch_size)
    assert (found.loader, found.origin) == ({"epoch": 1, "step": place}, origin)
    steps = -(-64 // batch_size)
    assert found.origin.first_step(1, steps) + place == 12 == found.step
    assert found.origin.place(12, steps) == (1, place)
    again = state(batch_size=batch_size, origin=origin, loader=found.loader).to_checkpoint()
    assert restore(again, images=64, batch_size=batch_size).origin == origin


def test_at_the_end_of_an_epoch_another_batch_size_repeats_and_skips_nothing():
    done = state(step=20, loader={"epoch": 1, "step": 10}).to_checkpoint()
    assert restore(done, images=64, batch_size=9).loader == {"epoch": 1, "step": 8}


def test_a_checkpoint_of_an_older_version_has_the_batch_size_of_its_run():
    old = state().to_checkpoint()
    del old.values["batch_size"], old.values["origin"]
    assert restore(old, 64, 14, before=7).loader["step"] == 1
    assert restore(old, 64, 7).loader["step"] == 2
