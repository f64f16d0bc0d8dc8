"""Weights of which each process keeps a part: the steps of one process that has them all, and its checkpoints."""

import pytest

WORK = """
import copy, pytest, torch
from torch import nn
from fastvae import VAE
from fastvae.data import ResidentLoader, load
from fastvae.utils.errors import InputError
from fastvae.nn import LearnedGaussian
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.engine import Engine
from fastvae.train.distributed.world import World

def model():
    torch.manual_seed(0)
    shared = nn.Linear(16, 16)  # which two layers use
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.PReLU(), shared, nn.Linear(16, 6))
    decoder = nn.Sequential(nn.Linear(3, 16), nn.LayerNorm(16), shared, nn.Linear(16, 64), nn.Unflatten(1, (1, 8, 8)))
    return VAE(encoder, decoder, LearnedGaussian(), latent_shape=3)

def engine(world, **settings):
    settings = {"precision": "fp64", "lr": 1e-3, **settings}
    config = resolve(TrainConfig(preset="gaussian", device="cpu", batch_size=7, execution="eager", **settings))
    return Engine(model(), config, world)

def train(engine, world, steps):
    loader = ResidentLoader(load("digits").train, batch_size=7, seed=0, rank=world.rank, world_size=world.size)
    for _, batch in zip(range(steps), loader):
        engine.train_step(batch)

def check(world, bound=1e-9, **settings):
    alone = World(0, 0, 1, world.device)
    whole, parts = engine(alone, **settings), engine(world, parallel="fsdp", **settings)
    for one, where in ((whole, alone), (parts, world)):
        train(one, where, 5)
    kept = sum(parameter.numel() for parameter in parts._weights.parameters)
    assert kept < 0.45 * sum(parameter.numel() for parameter in whole.model.parameters())
    expected, found = whole.state(), parts.state()
    assert found.values["optimizer"]["scalars"] == expected.values["optimizer"]["scalars"]
    for name, tensor in expected.tensors.items():
        if world.is_rank_0:
            torch.testing.assert_close(found.tensors[name], tensor, rtol=bound, atol=bound)
    again = engine(world, parallel="fsdp", **settings)
    again.load_state(expected.copy())
    train(again, world, 5)
    train(whole, alone, 5)
    found, expected = again.weights(), whole.weights()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=bound, atol=bound)
    images = ResidentLoader(load("digits").test, batch_size=50, seed=0, rank=world.rank, world_size=world.size)
    assert again.evaluate(images, 0).loss == pytest.approx(
        whole.evaluate(ResidentLoader(load("digits").test, batch_size=50, seed=0), 0).loss, rel=bound)

    pictures = load("digits").test[:4]
    with again.using_result() as model:
        shown = model.eval().reconstruct(pictures).to(torch.float64)
    with whole.using_result() as model:
        expected = model.eval().reconstruct(pictures).double()
    torch.testing.assert_close(shown, expected, rtol=0, atol=max(bound, 1e-6))

def work(world):
    check(world)
    check(world, accumulate=5, clip_norm=0.1)
    check(world, optimizer="adagrad", compress="bf16", bound=5e-2)
    check(world, optimizer="sgd", lr=1e-5, precision="fp32", bound=1e-4)
    check(world, optimizer="sgd", lr=1e-5, precision="bf16", bound=1e-2)
    bad = engine(world, parallel="fsdp", on_nonfinite="skip")
    before = [parameter.clone() for parameter in bad._weights.parameters]
    if world.rank == 1:
        bad._scalars.beta.fill_(torch.nan)
    train(bad, world, 2)
    assert bad.nonfinite.log[0] == 2
    assert all(torch.equal(old, new) for old, new in zip(before, bad._weights.parameters))
"""


@pytest.mark.slow
@pytest.mark.xdist_group("spellings")
def test_three_processes_with_parts_of_the_weights_do_what_one_does_with_all(in_processes):
    in_processes(WORK, 3)
