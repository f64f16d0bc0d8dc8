"""The workload that all contenders train on, and the interface of a contender."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fastvae.data import Dataset, in_memory
from fastvae.models import VAE, Preset, build
from fastvae.ops import Noise

from .products import Products

Kind = Literal["tutorial", "torch", "jax", "pythae", "fastvae", "floor"]
_EVAL_BATCH = 1000


@dataclass(frozen=True, eq=False)
class Workload:
    """Network, recipe, data, batch size and device. ``steps`` is the length of a slice; None means whole epochs."""

    name: str
    recipe: Preset
    dataset: Dataset
    batch_size: int
    device: torch.device
    steps: int | None = None

    @property
    def epoch_steps(self) -> int:
        """Steps per epoch; the last batch may be smaller."""
        return -(-len(self.dataset.train) // self.batch_size)

    @cached_property
    def images(self) -> Tensor:
        """Training images (N, C, H, W) on the device in the data set's dtype; in channels_last for convolutions."""
        images = in_memory(self.dataset.train).to(self.device)
        return images if self.recipe.network == "mlp" else images.contiguous(memory_format=torch.channels_last)

    @cached_property
    def pixels(self) -> Tensor:
        """All training images as one fp32 tensor on the device, read as x/255, in the form of :meth:`layer_input`."""
        return self.layer_input(as_floats(self.images))

    def layer_input(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) as a plain loop feeds them to its layers: flat for an MLP or in channels_last."""
        if self.recipe.network == "mlp":
            return images.flatten(1)
        return images.contiguous(memory_format=torch.channels_last)

    def layers(self, model: VAE) -> tuple[nn.Module, nn.Module]:
        """Return encoder and decoder for inputs of :meth:`layer_input`: without the reshaping of an MLP."""
        if self.recipe.network == "mlp":
            return model.encoder[1:], model.decoder[:-1]  # type: ignore[index]
        return model.encoder, model.decoder

    def model(self, seed: int) -> VAE:
        """Build the network on the device. Its weights depend only on the seed, so that all contenders share them."""
        torch.manual_seed(seed)
        return build(self.recipe, self.dataset.shape).to(self.device)

    @torch.no_grad()
    def test_loss(self, model: VAE) -> float:
        """Return the negative ELBO of the test images in nats per sample, always by the eager reference in fp32."""
        total = 0.0
        for start in range(0, len(self.dataset.test), _EVAL_BATCH):
            images = in_memory(self.dataset.test)[start : start + _EVAL_BATCH].to(self.device)
            noise = Noise(0, row_offset=start, device=self.device)
            total += model.loss(images, noise, reduction="sum", backend="reference").loss.item()
        return total / len(self.dataset.test)


class Contender(ABC):
    """A training loop that can be stopped after each step.

    Attributes:
        precision: the precision of its matmuls.
        model: the model that it trains; None for a floor.
        note: a remark for the table, such as the autotuner's choice.
        products: the measurements from which a floor was chosen; None for others.
    """

    precision: str = "fp32"
    model: VAE | None = None
    note: str = ""
    products: Products | None = None

    @abstractmethod
    def epoch(self, number: int) -> Iterator[None]:
        """Train an epoch and yield after each step. Work that the loop does between steps is timed too."""

    def lap(self, number: int, steps: int | None, wait: Callable[[], None]) -> float:
        """Train an epoch, or its first 1 + ``steps`` steps, and return the seconds per step.

        The first step of a slice is not timed, because it also shuffles the data and warms the caches. ``wait``
        synchronizes with the device.
        """
        stream = self.epoch(number)
        if steps is not None:
            next(stream)
        wait()
        started = time.perf_counter()
        count = sum(1 for _ in islice(stream, steps))
        wait()
        return (time.perf_counter() - started) / count


class Entry(NamedTuple):
    """A contender's name and kind, and a function that builds it for a workload and a seed."""

    name: str
    kind: Kind
    make: Callable[[Workload, int], Contender]


def as_floats(images: Tensor) -> Tensor:
    """Convert pixels to fp32; uint8 is read as x/255."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def training_loss(workload: Workload, nll: Tensor, kl: Tensor, rows: int) -> Tensor:
    """Return the loss that the recipe minimises, given the sums of nll and KL over a batch of ``rows`` rows."""
    weight = workload.recipe.loss_weight
    if workload.recipe.reduction == "batchmean":
        weight /= rows
    return (nll + kl) if weight == 1 else weight * (nll + kl)
