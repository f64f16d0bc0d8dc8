"""Whole epochs of the preset `leaky` at batch size 100, by each contender of `fastvae bench`.

Trains on MNIST where FASTVAE_DATA has it, else on noise of its size, which takes as long. Here one contender follows
the other, and the tables of all benchmarks come out alike; `fastvae bench` takes turns, and has more to say.
"""

import os
import warnings

import pytest
import torch

from fastvae.bench.contenders.entries import contenders
from fastvae.bench.contenders.workload import Workload
from fastvae.bench.race import TOLERANCE
from fastvae.data import Dataset, load
from fastvae.models import PRESETS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def workload(dataset):
    return Workload("leaky", PRESETS["leaky"], dataset, 100, DEVICE)


def noise(train=60_000, test=10_000):
    images = torch.randint(0, 256, (train + test, 1, 28, 28), dtype=torch.uint8)
    return Dataset("noise", images[:train], images[train:])


@pytest.fixture(scope="module")
def leaky():
    if os.environ.get("FASTVAE_DATA"):
        return workload(load("mnist"))
    warnings.warn("FASTVAE_DATA is not set: this trains on noise in place of MNIST", stacklevel=1)
    return workload(noise())


@pytest.fixture(scope="module")
def agreed():
    """Test losses of the contenders so far. All must be near the first one, or the comparison is void."""
    return []


@pytest.mark.parametrize("entry", contenders(workload(noise(1, 1))), ids=lambda entry: entry.name)
def test_epoch_of_leaky(benchmark, leaky, entry, agreed):
    benchmark.group = "an epoch of leaky, batch 100, 60,000 images (ms a step)"
    contender = entry.make(leaky, 0)
    epochs = iter(range(100))
    benchmark.extra_info.update(name=entry.name, baseline=entry.kind in ("tutorial", "floor"), per=leaky.epoch_steps)
    benchmark.pedantic(lambda: contender.lap(next(epochs), None, wait), rounds=3, warmup_rounds=1)
    if contender.model is not None:
        benchmark.extra_info["test_loss"] = leaky.test_loss(contender.model)
        agreed.append(benchmark.extra_info["test_loss"])
        assert agreed[-1] == pytest.approx(agreed[0], rel=TOLERANCE)


def wait():
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
