"""An engine with its loader and replay, as in ``fastvae train``. Used by the sections steps and nccl."""

import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvae.data import ResidentLoader, in_memory, load
from fastvae.models import build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.config.schedules import plan
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.graphs.step_graphs import StepGraphs

from .section import Section, test_module


def make(section: Section, batches: int, kind: type[World] = World, **options: Any) -> tuple[Engine, ResidentLoader]:
    """Make an engine, and a loader of ``batches`` full batches and a smaller one.

    A data set that is too small is repeated. ``options`` are fields of TrainConfig.
    """
    config = resolve(TrainConfig(epochs=2, **options))
    assert config.batch_size is not None
    data_dir = None if section.data_dir is None else Path(section.data_dir)
    images = in_memory(load(section.data, data_dir, size=config.recipe.image_size).train)
    rows = batches * config.batch_size + 5
    images = images[torch.arange(rows) % len(images)]
    if config.recipe.network != "mlp":
        images = images.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    model = build(config.recipe, tuple(images.shape[1:]), config.latent_dim, config.width)
    loader = ResidentLoader(images, batch_size=config.batch_size, seed=0, device=section.device)
    world = kind(0, 0, 1, section.device)
    return Engine(model, config, world, plan(config, len(loader)), rows), loader


def pretend(section: Section) -> None:
    """Make the CPU take a GPU's steps in a dry run, with a recording in place of a CUDA graph."""
    if section.dry:
        test_module("train.recording").as_on_a_gpu(types.SimpleNamespace(setattr=setattr))


def epoch(engine: Engine, loader: ResidentLoader, replay: StepGraphs | None, number: int) -> None:
    """Train an epoch: by replays and then the remaining steps, or step by step if ``replay`` is None."""
    loader.set_epoch(number)
    if replay is not None:
        run_all(replay)
    for batch in loader:
        engine.train_step(batch)


def run_all(replay: StepGraphs) -> None:
    """StepGraphs all remaining full batches of the epoch."""
    while steps := replay.fitting(sys.maxsize):
        replay.run(steps)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def difference(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> tuple[int, float]:
    """Return the number of tensors that differ in any bit, and the largest difference. NaNs count as equal."""
    pairs = [(a.detach().nan_to_num(7.0), b.detach().nan_to_num(7.0)) for a, b in zip(ours, theirs, strict=True)]
    apart = [(a.double() - b.double()).abs().max().item() for a, b in pairs if a.numel()]
    return sum(not torch.equal(a, b) for a, b in pairs), max(apart)
