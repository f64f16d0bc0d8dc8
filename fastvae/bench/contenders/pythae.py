"""Pythae's own trainer on its default network."""

import contextlib
import importlib.util
import logging
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from fastvae.bench.contenders.workload import Contender, Task, as_floats
from fastvae.data import in_memory
from fastvae.models import VAE, Preset

# pythae's VAEConfig and BaseTrainerConfig as they come: 784-512-(10, 10), 10-512-784 and a sigmoid, squared error.
RECIPE = Preset(
    summary="pythae's default MLP",
    hidden=(512,),
    latent_dim=10,
    likelihood="gaussian",
    reduction="batchmean",
    lr=1e-4,
    batch_size=64,
    epochs=100,
)


def installed() -> bool:
    """Whether there is a pythae to compare with."""
    return importlib.util.find_spec("pythae") is not None


class Pythae(Contender):
    """``BaseTrainer.train_step``, which is an epoch. It gives no turn between steps: a slice is one of fewer images."""

    def __init__(self, task: Task, seed: int) -> None:
        from pythae import models, trainers  # noqa: PLC0415 -- need not be installed
        from pythae.data.datasets import BaseDataset  # noqa: PLC0415

        self._own = task.model(seed)
        self._network: nn.Module = models.VAE(
            models.VAEConfig(input_dim=task.dataset.shape, latent_dim=task.recipe.latent_dim)
        )
        _copy(self._own, self._network)
        images = in_memory(task.dataset.train)[: None if task.steps is None else task.steps * task.batch_size]
        self._steps = -(-len(images) // task.batch_size)
        folder = tempfile.mkdtemp(prefix="fastvae-bench-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        settings = trainers.BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            per_device_train_batch_size=task.batch_size,
            learning_rate=task.recipe.lr,
            seed=seed,
            no_cuda=task.device.type == "cpu",
        )
        with _quiet():
            data = BaseDataset(as_floats(images), torch.zeros(len(images)))
            self._trainer: Any = trainers.BaseTrainer(self._network, data, training_config=settings)
            self._trainer.prepare_training()

    @property
    def model(self) -> VAE:  # type: ignore[override]
        """The weights of now, in fastvae's network."""
        _copy(self._network, self._own)
        return self._own

    def epoch(self, number: int) -> Iterator[None]:
        raise NotImplementedError("pythae's trainer takes whole epochs")

    def lap(self, number: int, _: int | None, wait: Callable[[], None]) -> float:
        with _quiet():
            wait()
            started = time.perf_counter()
            self._trainer.train_step(number + 1)
            wait()
            return (time.perf_counter() - started) / self._steps


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module) -> None:
    """The encoders of both list hidden layer, mean and log-variance, the decoders their two layers."""
    for part in ("encoder", "decoder"):
        pairs = zip(source.get_submodule(part).parameters(), target.get_submodule(part).parameters(), strict=True)
        for theirs, ours in pairs:
            ours.copy_(theirs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
