"""The bound on the losses of the trial's candidates."""

import math

import pytest
import torch

from fastvae.train.distributed.world import World
from fastvae.train.measure.loss_bound import losses_too_bad, mean_loss

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
EAGER, TRACED = ("fp32", "eager"), ("fp32", "traced")
BF16 = ("bf16", "traced")


@pytest.mark.parametrize(
    ("exact", "loss", "left_out"),
    [
        (500.0, 504.9, False),  # within 1 %
        (500.0, 505.1, True),
        (500.0, 400.0, False),  # a better one is welcome
        (-500.0, -495.1, False),
        (-500.0, -494.9, True),
        (0.0, 1.9, False),  # within 0.002 nats for each of 1,000 values
        (0.0, 2.1, True),
        (500.0, math.inf, True),
        (math.inf, math.inf, False),
    ],
)
def test_the_bound_on_the_loss(exact, loss, left_out):
    losses = {EAGER: exact, TRACED: exact, BF16: loss}
    assert losses_too_bad(losses, 1000) == ({BF16} if left_out else set())
    assert losses_too_bad({BF16: loss}, 1000) == set()  # without fp32's there is nothing to compare with


def test_a_step_that_is_not_finite_counts_as_the_worst_loss():
    steps = torch.tensor([5])
    assert mean_loss(torch.tensor([240.0, 200.0, 40.0, 0.0]), steps, 8, ALONE) == 6
    assert mean_loss(torch.tensor([240.0, 200.0, 40.0, 8.0]), steps, 8, ALONE) == math.inf  # a step was left out
    assert mean_loss(torch.tensor([math.nan, 200.0, 40.0, 0.0]), steps, 8, ALONE) == math.inf
