"""Training curves of the reference loop and of the engine, with the same weights, batches and noise."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvae import reference
from fastvae.data import Batch, ResidentLoader
from fastvae.models import VAE, build
from fastvae.ops.noise import PIXEL_BIT
from fastvae.train.config import ResolvedConfig, SettledExecution, SettledPrecision, settle
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.report.metrics import Metrics
from fastvae.train.step.loss import PIXEL_STREAM
from fastvae.utils.precision import autocast_dtype


class Curve(NamedTuple):
    """Losses and final weights of a run.

    Attributes:
        terms: (steps, 3) fp64: loss, nll and KL of each step's batch, in nats per sample.
        weights: the model's state dict at the end.
        left_out: indices of the steps that the loss scaler skipped, because a gradient overflowed.
    """

    terms: Tensor
    weights: dict[str, Tensor]
    left_out: frozenset[int] = frozenset()

    @property
    def loss(self) -> Tensor:
        """Loss of each step, (steps,) fp64."""
        return self.terms[:, 0]


@dataclass(frozen=True, eq=False)
class Setting:
    """The setting that both loops share: a resolved config, images (N, C, H, W), the number of steps, the device."""

    config: ResolvedConfig
    images: Tensor
    steps: int
    device: torch.device

    def reference(self, precision: SettledPrecision, left_out: frozenset[int] = frozenset()) -> Curve:
        """Run the reference loop: directly in fp64 or fp32, under autocast in bf16 or fp16.

        In fp16 its loss is scaled as the engine does it. ``left_out`` are steps to skip, as a loop in fp16 did.
        """
        recipe = self.config.recipe
        low = autocast_dtype(precision)
        model = self._model().to(torch.float64 if precision == "fp64" else torch.float32)
        kind = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[recipe.optimizer]
        plain = kind(model.parameters(), lr=self.config.lr, **recipe.optimizer_options)
        optimizer: Any = _LeavingOut(plain, left_out)
        loss_weight: Any = recipe.loss_weight
        if precision == "fp16":
            optimizer = _Scaled(plain, recipe.loss_weight, self.device)
            loss_weight = optimizer.loss_weight
        # With its cache, autocast around the whole loop would reuse the weights that it cast at the first step.
        context = nullcontext() if low is None else torch.autocast(self.device.type, low, cache_enabled=False)
        with self.device, context:  # the loop makes its noise on the default device
            steps = reference.train(
                model.encode,
                model.decoder,
                optimizer,
                (batch.images for batch in self._batches()),
                seed=self.config.seed,
                likelihood=recipe.likelihood,
                beta=self.config.beta,
                reduction=recipe.reduction,
                loss_weight=loss_weight,
                pixel_stream=PIXEL_STREAM ^ PIXEL_BIT if self.config.binarize else None,
            )
            return self._curve(steps, model, optimizer.left_out)

    def fused(self, precision: SettledPrecision, execution: SettledExecution) -> Curve:
        """Run the engine of ``fastvae train``, with the backend of the config."""
        config = settle(self.config, precision, execution)
        world = World(rank=0, local_rank=0, size=1, device=self.device)
        engine = Engine(self._model(), config, world)

        def steps() -> Iterator[Metrics]:
            for batch in self._batches():
                engine.sums.zero_()
                engine.train_step(batch)
                yield Metrics.from_sums(engine.sums, batch.rows)

        return self._curve(steps(), engine.model)

    def _curve(
        self, steps: Iterator[tuple[float, float, float]], model: VAE, left_out: frozenset[int] | set[int] = frozenset()
    ) -> Curve:
        terms = [list(step) for step in steps]
        return Curve(torch.tensor(terms, dtype=torch.float64, device="cpu"), model.state_dict(), frozenset(left_out))

    def _model(self) -> VAE:
        torch.manual_seed(self.config.seed)
        return build(self.config.recipe, self.images.shape[1:], self.config.latent_dim).to(self.device)

    def _batches(self) -> Iterator[Batch]:
        """Yield a batch for each step: epoch after epoch, with the smaller last batch of each."""
        loader = ResidentLoader(
            self.images, batch_size=self.config.batch_size, seed=self.config.seed, device=self.device
        )

        def epochs() -> Iterator[Batch]:
            for epoch in range(self.steps):
                loader.set_epoch(epoch)
                yield from loader

        return islice(epochs(), self.steps)


class _LeavingOut:
    """An optimiser that skips some of its steps."""

    def __init__(self, optimizer: torch.optim.Optimizer, left_out: frozenset[int] | set[int]) -> None:
        self._optimizer = optimizer
        self.left_out = left_out
        self.param_groups = optimizer.param_groups
        self.zero_grad = optimizer.zero_grad
        self._step = 0

    def step(self) -> None:
        if self._step not in self.left_out:
            self._optimizer.step()
        self._step += 1


class _Scaled:
    """An optimiser with torch's own loss scaler. ``loss_weight`` () is the factor of the loss, including the scale."""

    def __init__(self, optimizer: torch.optim.Optimizer, loss_weight: float, device: torch.device) -> None:
        self._optimizer = optimizer
        self._own_weight = loss_weight
        self.param_groups = optimizer.param_groups
        self.zero_grad = optimizer.zero_grad
        self._scaler = torch.amp.GradScaler(device.type)
        self.loss_weight = self._scaler.scale(torch.full((), loss_weight, device=device))
        self.left_out: set[int] = set()
        self._step = 0

    def step(self) -> None:
        before = self._scaler.get_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._scaler.get_scale() < before:
            self.left_out.add(self._step)
        self.loss_weight.fill_(self._scaler.get_scale() * self._own_weight)
        self._step += 1
