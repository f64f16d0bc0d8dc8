"""The contender pythae: its own trainer on its default network."""

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

from fastvae.data import in_memory
from fastvae.models import VAE, Preset

from .workload import Contender, Workload, as_floats

# The defaults of pythae's VAEConfig and BaseTrainerConfig: 784-512-(10, 10), 10-512-784, a sigmoid, squared error.
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
    """Return True if pythae is installed."""
    return importlib.util.find_spec("pythae") is not None


class PythaeLoop(Contender):
    """pythae's ``BaseTrainer.train_step``, which trains a whole epoch: a slice is an epoch of fewer images."""

    def __init__(self, workload: Workload, seed: int) -> None:
        from pythae import models, trainers  # noqa: PLC0415 -- optional
        from pythae.data.datasets import BaseDataset  # noqa: PLC0415

        self._own = workload.model(seed)
        self._network: nn.Module = models.VAE(
            models.VAEConfig(input_dim=workload.dataset.shape, latent_dim=workload.recipe.latent_dim)
        )
        _copy(self._own, self._network)
        images = in_memory(workload.dataset.train)[
            : None if workload.steps is None else workload.steps * workload.batch_size
        ]
        self._steps = -(-len(images) // workload.batch_size)
        folder = tempfile.mkdtemp(prefix="fastvae-bench-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        settings = trainers.BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            per_device_train_batch_size=workload.batch_size,
            learning_rate=workload.recipe.lr,
            seed=seed,
            no_cuda=workload.device.type == "cpu",
        )
        with _quiet():
            data = BaseDataset(as_floats(images), torch.zeros(len(images)))
            self._trainer: Any = trainers.BaseTrainer(self._network, data, training_config=settings)
            self._trainer.prepare_training()

    @property
    def model(self) -> VAE:  # type: ignore[override]
        """Copy the current weights into fastvae's network and return it."""
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
    """Copy an MLP's weights. Both libraries order them alike: hidden layer, mean and log-variance; then the decoder."""
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
