"""Optimisers by name: each that is offered trains as the plain class of torch does, and survives a checkpoint."""

import pytest
import torch

from fastvae.data import ResidentLoader, load
from fastvae.models import build
from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.optim.build import _CLASSES, _REFUSED
from fastvae.train.optim.update import Update

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
NAMES = sorted(_CLASSES.keys() - _REFUSED.keys())


def engine_of(precision="fp32", **settings):
    torch.manual_seed(3)
    config = resolve(TrainConfig(precision=precision, execution="eager", latent_dim=2, **settings))
    return Engine(build(config.recipe, (1, 8, 8), config.latent_dim), config, CPU)


def steps(engine, count):
    loader = ResidentLoader(load("digits").train[:256], batch_size=64, seed=0)
    for step in range(count):
        engine.train_step(loader.fetch(step))
    return engine


@pytest.mark.parametrize("name", NAMES)
def test_each_takes_the_steps_of_torchs_own(name):
    ours = engine_of("fp64", optimizer=name.upper(), lr=1e-3)
    plain = engine_of("fp64", lr=1e-3)
    optimizer = _CLASSES[name](list(plain.model.parameters()), lr=1e-3)
    plain._update = Update(plain._weights, optimizer, plain.scaler, plain.nonfinite.found, None, on_host=True)
    before = [parameter.detach().clone() for parameter in ours.model.parameters()]
    steps(ours, 4), steps(plain, 4)
    for first, own, other in zip(before, ours.model.parameters(), plain.model.parameters(), strict=True):
        assert not torch.equal(first, own)
        torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-7)  # ASGD keeps its rate in fp32


@pytest.mark.parametrize("name", NAMES)
def test_each_goes_on_from_a_checkpoint(name):
    first, second = engine_of(optimizer=name), engine_of(optimizer=name)
    state = steps(first, 4).state()
    second.load_state(Checkpoint({key: value.clone() for key, value in state.tensors.items()}, state.values))
    steps(first, 3), steps(second, 3)
    for own, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(own, other)


def test_options_reach_the_class_and_switches_become_booleans():
    group = engine_of(
        optimizer="sgd", optimizer_options={"momentum": 0.9, "nesterov": 1, "weight_decay": 0.1}
    ).optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 0.1)


def test_the_presets_options_stay_with_its_own_optimizer():
    config = resolve(TrainConfig(preset="keras", optimizer_options={"momentum": 0.5}))
    assert (config.optimizer, config.optimizer_options) == ("rmsprop", {"alpha": 0.9, "eps": 1e-7, "momentum": 0.5})
    assert resolve(TrainConfig(preset="keras", optimizer="Adam")).optimizer_options == {}
    assert resolve(config) == config
