"""A run's state and the checkpoint that holds it."""

import pytest
import torch

from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.train.run_state import RunState, refusing_foreign, restore
from fastvae.utils.errors import InputError


def state(**changes):
    settings = {
        "step": 12,
        "epoch": 1,
        "loader": {"epoch": 1, "step": 2},
        "best": {"loss": 1.5, "epoch": 1},
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
    found = restore(state().to_checkpoint(), epoch_steps=10)
    for name in ("step", "epoch", "loader", "best", "meter"):
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
    ],
)
def test_what_is_not_of_one_moment_is_refused(changes):
    with pytest.raises(InputError, match="checkpoint"):
        restore(state(**changes).to_checkpoint(), epoch_steps=10)


def test_torchs_errors_become_one_line():
    with pytest.raises(InputError, match=r"cannot resume from the checkpoint .*no such key"), refusing_foreign():
        raise KeyError("no such key")
