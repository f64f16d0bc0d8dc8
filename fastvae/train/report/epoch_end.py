"""The state of a run at the end of an epoch, for callbacks."""

from collections.abc import Callable
from typing import NamedTuple

from fastvae.models import VAE

from .metrics import Metrics


class EpochEnd(NamedTuple):
    """The state of a run at the end of an epoch, as callbacks get it on every rank.

    epoch: finished epochs. step: steps taken. train, test: means in nats per sample.
    model: the evaluated model, with the moving average of the weights if the run keeps one. With --parallel fsdp its
        weights are sharded, so every rank has to call it alike.
    """

    epoch: int
    step: int
    train: Metrics
    test: Metrics
    model: VAE


# Called at the end of each epoch. A true result ends the run; every rank has to return the same.
Callback = Callable[[EpochEnd], object]
