"""Objectives and likelihoods that couple the rows of a batch, in one part or in several."""

import math

import numpy
import pytest
import torch
from torch import nn

import fastvae
from fastvae.data import Batch, load
from fastvae.models import OBJECTIVES, PRESETS, build
from fastvae.nn import as_likelihood
from fastvae.nn.names import _NAMES
from fastvae.train import TrainConfig, resolve
from fastvae.train.config import settle
from fastvae.train.distributed.coupled_rows import shares_kl, told
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine

BATCH = Batch(load("digits").train[:23], row_offset=0, rows=23)
# Thresholds that some latents are above and some below, and a capacity between the KLs of the parts.
OBJECTIVE = {
    "free-bits": {"objective": "free-bits", "free_bits": 0.004},
    "capacity": {"objective": "capacity", "capacity": 0.1, "beta": 3.0},
}
ONE = World(0, 0, 1, torch.device("cpu"))


def train(options, *, steps=12, model=None, execution="traced"):
    config = resolve(TrainConfig(batch_size=23, latent_dim=5, lr=3e-3, **options))
    torch.manual_seed(0)
    engine = Engine(model or build(config.recipe, (1, 8, 8), 5), settle(config, "fp64", execution), ONE)
    for _ in range(steps):
        engine.train_step(BATCH)
    return engine


@pytest.mark.parametrize("execution", ["eager", "traced"])
@pytest.mark.parametrize("extra", [{}, {"binarize": True}, {"backend": "reference"}], ids=str)
@pytest.mark.parametrize("name", OBJECTIVE)
def test_a_batch_in_three_parts_takes_the_step_of_the_whole(name, extra, execution):
    whole = train(OBJECTIVE[name] | extra, execution=execution)
    parts = train(OBJECTIVE[name] | extra | {"accumulate": 3}, execution=execution)
    torch.testing.assert_close(parts.sums, whole.sums, rtol=1e-12, atol=0)
    for weight, other in zip(parts.weights().values(), whole.weights().values(), strict=True):
        torch.testing.assert_close(weight, other, rtol=0, atol=1e-11)


_PROCESSES = """
import torch
from fastvae.data import ResidentLoader, load
from fastvae.models import build
from fastvae.train.config import TrainConfig, resolve, settle
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine

def losses(world, **options):
    config = resolve(TrainConfig(batch_size=101, lr=3e-3, **options))
    torch.manual_seed(0)
    execution = "eager" if config.parallel == "fsdp" else "traced"
    engine = Engine(build(config.recipe, (1, 8, 8)), settle(config, "fp64", execution), world)
    loader = ResidentLoader(
        load("digits").train[:402], batch_size=101, seed=0, device=world.device, rank=world.rank, world_size=world.size
    )
    found = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        for batch in loader:
            engine.sums.zero_()
            engine.train_step(batch)
            world.all_reduce(engine.sums)
            found.append(engine.sums[0].item() / batch.rows)
    return torch.tensor(found)

def work(world):
    one = World(0, 0, 1, torch.device("cpu"))
    for options in OPTIONS:
        expected = losses(one, **options)
        for how in ({}, {"accumulate": 2}, {"parallel": "fsdp"}):
            torch.testing.assert_close(losses(world, **options, **how), expected, rtol=1e-9, atol=0)
"""


def test_two_processes_have_the_curve_of_one(in_processes):
    in_processes(f"OPTIONS = {list(OBJECTIVE.values())}\n{_PROCESSES}", 2)


def own(*layers):
    return fastvae.VAE(nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 4)), nn.Linear(2, 64))


class Counting(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x


def hooked():
    layer = nn.Linear(64, 64)
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    ("layers", "is_exact"),
    [
        ((), True),
        ((nn.Linear(64, 64), nn.SiLU(), nn.LayerNorm(64)), True),
        ((nn.Dropout(0.5),), False),
        ((nn.BatchNorm1d(64),), False),
        ((nn.RReLU(),), False),
        ((Counting(),), False),
        ((nn.utils.parametrizations.spectral_norm(nn.Linear(64, 64)),), False),
        ((hooked(),), False),
    ],
    ids=lambda value: str([type(layer).__name__ for layer in value]) if isinstance(value, tuple) else str(value),
)
def test_only_encoders_that_compute_the_same_twice_are_run_twice(layers, is_exact):
    assert shares_kl("free-bits", own(*layers)) == is_exact
    assert not shares_kl("elbo", own(*layers))
    assert not shares_kl("tcvae", own(*layers))


def test_an_encoder_with_state_is_run_once_for_each_part():
    counting = Counting()
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
    model = fastvae.VAE(nn.Sequential(nn.Flatten(), counting, nn.Linear(64, 4)), decoder)
    engine = train(OBJECTIVE["free-bits"] | {"accumulate": 2}, steps=3, model=model, execution="eager")
    assert not engine.shares_kl
    assert counting.calls == 6


def test_every_preset_is_exact():
    for preset in PRESETS.values():
        if preset.network != "ladder":
            side = preset.image_size or 28
            assert shares_kl("capacity", build(preset, (1, side, side)))


def test_what_couples_rows_is_registered():
    assert {name for name, spec in OBJECTIVES.items() if spec.couples_rows} == {"capacity", "free-bits", "tcvae"}
    assert {name for name in _NAMES if as_likelihood(name).couples_rows} == {"optimal_gaussian"}


@pytest.mark.parametrize(
    ("objective", "likelihood", "shares", "parts", "line"),
    [
        ("tcvae", "bernoulli", False, (1, 1), None),
        ("elbo", "bernoulli", False, (4, 2), None),
        ("free-bits", "bernoulli", True, (2, 1), None),
        (
            "free-bits", "bernoulli", False, (2, 1),
            "objective free-bits: of each part of a batch alone, 12 of 23 rows (2 processes, --accumulate 1); "
            "another number of parts trains to other weights",
        ),
        (
            "tcvae", "optimal_gaussian", False, (1, 23),
            "objective tcvae and likelihood OptimalGaussian: of each part of a batch alone, 1 of 23 rows (1 process, "
            "--accumulate 23); another number of parts trains to other weights; one row has no total correlation, and "
            "is trained by the ELBO: use a larger --batch-size",
        ),
    ],
)  # fmt: skip
def test_what_is_of_a_part_alone_is_told(objective, likelihood, shares, parts, line):
    processes, accumulate = parts
    assert (
        told(objective, as_likelihood(likelihood), shares, rows=23, processes=processes, accumulate=accumulate) == line
    )


def test_a_batch_of_one_row_has_no_total_correlation_and_says_so(train, metrics, capsys, tmp_path):
    numpy.save(tmp_path / "three.npy", load("digits").train[:3].numpy())
    flags = ("--data", str(tmp_path / "three.npy"), "--objective", "tcvae", "--beta", "4", "--batch-size", "1")
    status, folder = train("--epochs", "1", *flags)
    assert status == 0
    assert all(math.isfinite(line[term]) for line in metrics(folder) for term in ("loss", "nll", "kl"))
    assert "fastvae: one row has no total correlation" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("flags", "is_told"),
    [
        (("--objective", "tcvae"), True),
        (("--objective", "free-bits", "--free-bits", "1"), False),
        ((), False),
    ],
    ids=str,
)
def test_a_run_begins_with_the_line(train, capsys, flags, is_told):
    assert train("--epochs", "1", "--accumulate", "2", *flags)[0] == 0
    assert ("trains to other weights" in " ".join(capsys.readouterr().out.split())) == is_told
