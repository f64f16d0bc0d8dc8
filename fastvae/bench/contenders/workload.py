"""What all contenders train, and what a contender is."""

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

Kind = Literal["tutorial", "torch", "pythae", "fastvae", "floor"]
_EVAL_BATCH = 1000


@dataclass(frozen=True, eq=False)
class Task:
    """Network and recipe, data, batch and device. ``steps``: of a slice; None for whole epochs."""

    name: str
    recipe: Preset
    dataset: Dataset
    batch_size: int
    device: torch.device
    steps: int | None = None

    @property
    def epoch_steps(self) -> int:
        """Steps in an epoch; the last batch may be smaller."""
        return -(-len(self.dataset.train) // self.batch_size)

    @cached_property
    def images(self) -> Tensor:
        """(N, C, H, W) on the device, of the data set's type, in channels_last for convolutions."""
        images = in_memory(self.dataset.train).to(self.device)
        return images if self.recipe.network == "mlp" else images.contiguous(memory_format=torch.channels_last)

    @cached_property
    def pixels(self) -> Tensor:
        """fp32 on the device: the data as one tensor, read as x/255 beforehand; as :meth:`laid_out` has them."""
        return self.laid_out(as_floats(self.images))

    def laid_out(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) as a plain loop hands them to its layers: flat for an MLP, else in channels_last."""
        if self.recipe.network == "mlp":
            return images.flatten(1)
        return images.contiguous(memory_format=torch.channels_last)

    def layers(self, model: VAE) -> tuple[nn.Module, nn.Module]:
        """Encoder and decoder for pixels so laid out: an MLP's own reshaping is left out."""
        if self.recipe.network == "mlp":
            return model.encoder[1:], model.decoder[:-1]  # type: ignore[index]
        return model.encoder, model.decoder

    def model(self, seed: int) -> VAE:
        """The network on the device, with the seed's initial weights: the same for all contenders."""
        torch.manual_seed(seed)
        return build(self.recipe, self.dataset.shape).to(self.device)

    @torch.no_grad()
    def test_loss(self, model: VAE) -> float:
        """The negative ELBO in nats a sample on the test images, one way for all: the eager reference in fp32."""
        total = 0.0
        for start in range(0, len(self.dataset.test), _EVAL_BATCH):
            images = in_memory(self.dataset.test)[start : start + _EVAL_BATCH].to(self.device)
            noise = Noise(0, row_offset=start, device=self.device)
            total += model.loss(images, noise, reduction="sum", backend="reference").loss.item()
        return total / len(self.dataset.test)


class Contender(ABC):
    """A training loop, taken step by step.

    precision: of its matrix products. model: what it trains; none for a floor. note: what it chose for itself.
    """

    precision: str = "fp32"
    model: VAE | None = None
    note: str = ""

    @abstractmethod
    def epoch(self, number: int) -> Iterator[None]:
        """Train an epoch; yields after each step. All that the loop does between steps belongs to it."""

    def lap(self, number: int, steps: int | None, wait: Callable[[], None]) -> float:
        """Train an epoch, or its first 1 + ``steps`` steps; returns the seconds of a step.

        The first step of a slice, which also shuffles the data and warms the caches, is not timed. ``wait`` waits for
        the device.
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
    """A contender by name, and how to make it for a task and a seed."""

    name: str
    kind: Kind
    make: Callable[[Task, int], Contender]


def as_floats(images: Tensor) -> Tensor:
    """Pixels in fp32; uint8 as x/255."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def minimised(task: Task, nll: Tensor, kl: Tensor, rows: int) -> Tensor:
    """The loss that the task's recipe minimises, from the sums over a batch of so many rows."""
    weight = task.recipe.loss_weight
    if task.recipe.reduction == "batchmean":
        weight /= rows
    return (nll + kl) if weight == 1 else weight * (nll + kl)
