"""Whole epochs of the preset `leaky` at batch 100: the tutorial's loop against fastvae's engine, in one run.

Trains on MNIST where FASTVAE_DATA has it, else on noise of its size, which takes as long.
"""

import os
import warnings
from functools import partial

import pytest
import torch
from tutorial import Tutorial

from fastvae.data import ResidentLoader, load
from fastvae.models import build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.engine import Engine, Terms
from fastvae.train.world import World


@pytest.fixture(scope="module")
def images():
    if os.environ.get("FASTVAE_DATA"):
        return load("mnist").train
    warnings.warn("FASTVAE_DATA is not set: this trains on noise in place of MNIST", stacklevel=1)
    return torch.randint(0, 256, (60_000, 1, 28, 28), dtype=torch.uint8)


class Fastvae:
    """One epoch at a time of the engine that `fastvae train` runs."""

    def __init__(self, images, device, precision, execution):
        config = resolve(TrainConfig(preset="leaky", precision=precision, execution=execution))
        torch.manual_seed(0)
        world = World(rank=0, local_rank=0, size=1, device=device)
        self.engine = Engine(build(config.recipe, images.shape[1:]), config, config.recipe, world)
        self.loader = ResidentLoader(images, batch_size=100, seed=0, device=device)
        self.number = -1

    def epoch(self):
        self.number += 1
        self.loader.set_epoch(self.number)
        self.engine.sums.zero_()
        for batch in self.loader:
            self.engine.train_step(batch)
        return Terms.of(self.engine.sums, len(self.loader.images)).loss


CONTENDERS = {
    "tutorial, DataLoader": lambda images, device: Tutorial(images, device, workers=0),
    "tutorial, DataLoader, 2 workers": lambda images, device: Tutorial(images, device, workers=2),
    **{
        f"fastvae {precision}, {execution}": partial(Fastvae, precision=precision, execution=execution)
        for precision in ("fp32", "bf16")
        for execution in ("eager", "traced", "compiled")
    },
}


@pytest.fixture(scope="module")
def agreed():
    """The loss of the first contender's last epoch: the others must come near it, or the comparison is void."""
    return []


@pytest.mark.parametrize("name", CONTENDERS)
def test_epoch_of_leaky(benchmark, images, device, name, agreed):
    benchmark.group = "an epoch of leaky, batch 100, 60,000 images (ms a step)"
    contender = CONTENDERS[name](images, device)
    losses = []
    benchmark.extra_info.update(name=name, baseline="tutorial" in name, per=600)
    benchmark.pedantic(lambda: losses.append(contender.epoch()), rounds=3, warmup_rounds=1)
    benchmark.extra_info["losses"] = losses
    agreed.append(losses[-1])
    assert losses[-1] == pytest.approx(agreed[0], rel=0.02)
