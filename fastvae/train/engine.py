"""One training step and one evaluation pass: the part that has to be fast."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastvae.data import Batch, Loader
from fastvae.models import VAE, Preset
from fastvae.ops import Noise
from fastvae.ops.internal.all_finite import all_finite

from .checkpoint.checkpoint import Checkpoint, flatten_optimizer, unflatten_optimizer
from .checkpoint.load_weights import fitting, load_weights
from .config import SettledConfig
from .distributed.world import World
from .optim.adam import Adam
from .optim.build import make_optimizer
from .optim.ema import EMA
from .optim.flat_gradients import FlatGradients, LaidOut
from .optim.master_weights import WorkingWeights
from .optim.schedule import Plan, Schedule
from .optim.state_dict import FORM, check_state
from .report.metrics import Terms
from .step.execution import Step
from .step.loss import EVAL_STREAM, StepLoss, StepScalars
from .step.nonfinite import Nonfinite
from .step.rollback import Rollback

if TYPE_CHECKING:
    from .distributed.fsdp import ShardedWeights
    from .step.sharded import ShardedStep

_PRODUCTS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Engine:
    """A model, its optimiser and its noise, and how they take a step on one device of a :class:`World`."""

    def __init__(
        self,
        model: VAE,
        config: SettledConfig,
        recipe: Preset,
        world: World,
        plan: Plan | None = None,
        dataset_size: int = 0,
    ) -> None:
        wide = torch.float64 if config.precision == "fp64" else torch.float32
        self.world, self._recipe = world, recipe
        self.has_shards = config.parallel == "fsdp" and world.size > 1
        self.model = model.to(wide)
        if not self.has_shards:
            self.model.to(world.device)
            world.broadcast([*model.parameters(), *model.buffers()])
        self.seed = config.seed
        self._full = (
            min(config.batch_size or 1, dataset_size) if dataset_size else config.batch_size
        )  # rows of most batches
        self.noise = Noise(config.seed, 0, device=world.device)
        self.sums = torch.zeros(4, dtype=torch.float64, device=world.device)  # loss, nll, kl; images of skipped steps
        self.nonfinite = Nonfinite(self.noise, lasting=config.on_nonfinite == "stop", backend=config.backend)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
        low = _PRODUCTS.get(config.precision)
        self._autocast = _autocast(low, world.device)
        sent = torch.bfloat16 if config.compress == "bf16" else None
        self._weights: WorkingWeights[VAE] | ShardedWeights
        if self.has_shards:
            from .distributed import fsdp  # noqa: PLC0415 -- a second to import, for those who shard

            self._weights = fsdp.ShardedWeights(self.model, world, low, sent)
        else:
            self._weights = WorkingWeights(self.model, low)
        self.optimizer = make_optimizer(self._weights, config.optimizer, config.optimizer_options, config.lr)
        self._heeds_found = self._heed_found()
        self._guard = Rollback(self.nonfinite.found, on_host=self.nonfinite.on_host)
        options = config.objective_options(dataset_size)
        minimised = StepLoss(
            self._weights.twin, config.backend, config.objective, options, binarize=bool(config.binarize)
        )
        self._step: Step | ShardedStep
        if isinstance(self._weights, WorkingWeights):
            self._step = Step(minimised, config.execution, self._autocast)
        else:
            from .step import sharded  # noqa: PLC0415 -- as above

            self._step = sharded.ShardedStep(minimised, self._weights, self._autocast)
        one, beta, capacity = (torch.full((1,), value, dtype=wide, device=world.device) for value in (1, *config.dials))
        self.scaler.scale(one)  # makes its tensors, which are made by the first call
        self._one, self._dials = one[0], StepScalars(one[0], beta[0], capacity[0])
        self._schedule = Schedule(plan or Plan(), self.optimizer, beta, capacity, self.noise.state)
        # Of each size of a batch, and never changed: a captured step has the one of full batches.
        self._batch_weights: dict[int, Tensor] = {}
        # Gradients go to the optimiser as they come, unless something needs them all at once and in fp32.
        at_once = world.size > 1 or self.scaler.is_enabled() or config.accumulate > 1 or config.clip_norm is not None
        self._parts, self._clip_norm = config.accumulate, config.clip_norm
        self._full = min(config.batch_size or 1, dataset_size or 2**63)  # rows of all batches but an epoch's last
        changed = self.scaler.is_enabled() or config.clip_norm is not None
        self._gradients = FlatGradients(self._weights, world, self._parts, sent, changed=changed) if at_once else None
        self._laid_out = LaidOut(self._weights.parameters)
        self._average = None if config.ema is None else EMA(self.model, config.ema)
        self._evaluated = StepLoss(self._weights.twin if self._average is None else self._average.model, config.backend)

    def _heed_found(self) -> bool:
        """Have the optimiser leave out, on the device, a step that is not finite. Returns whether one does.

        A loss scale's optimiser does. So do the fused ones, but SGD's makes its momentum in such a first step.
        """
        if self.scaler.is_enabled():
            if isinstance(self.optimizer, torch.optim.SGD):
                self._begin_momentum()
            return True
        heeds = bool(self.optimizer.param_groups[0].get("fused")) and not isinstance(self.optimizer, torch.optim.SGD)
        if heeds and not self.nonfinite.on_host:
            self.optimizer.found_inf = self.nonfinite.found[0]  # type: ignore[attr-defined]  # as GradScaler does
        return heeds

    def _begin_momentum(self) -> None:
        """Make SGD's momentum, which its fused form leaves as memory was where the first step is left out."""
        for group in self.optimizer.param_groups:
            if group["momentum"] and not group["dampening"]:  # which a momentum's first step has not
                for weight in group["params"]:
                    zeros = torch.zeros_like(weight, memory_format=torch.preserve_format)
                    self.optimizer.state[weight]["momentum_buffer"] = zeros

    def train_step(self, batch: Batch) -> None:
        """Take one step. Adds the batch's sums to ``sums`` and moves the noise on; waits for nothing.

        A step whose loss or gradient is not finite does nothing else: ``nonfinite`` counts it.
        """
        self._schedule.set()
        dials, watch = self._dials_of(batch.rows), self.nonfinite
        self._guard.remember(self._at_risk())
        if self._gradients is None:
            full = batch.rows == self._full
            sums, gradients = self._step(batch.images, self.noise.state, batch.row_offset, dials, is_full=full)
            looked_at = gradients
        else:
            sums = self._gather(self._gradients, batch, dials)
            # Of scaled gradients, the scaler judges.
            looked_at = [self._gradients.alarm if self.scaler.is_enabled() else self._gradients.buffer]
        watch.look(self.sums, sums, looked_at, rows=batch.rows, images=len(batch.images))
        if not watch.leaves_out:
            if self._gradients is None:
                self._update(gradients)
            else:
                self._update_at_once(self._gradients)
            if self._average is not None:
                self._average.update()
        self._guard.undo(self._at_risk())
        if not watch.leaves_out and not isinstance(self.optimizer, Adam):  # whose step has cast the weights
            self._weights.refresh()

    def _gather(self, flat: FlatGradients, batch: Batch, dials: StepScalars) -> Tensor:
        """Forward and backward of each part of the batch, a row's noise being that of its place in the whole."""
        rows = len(batch.images)
        ends = [part * rows // self._parts for part in range(1, self._parts + 1)]
        if not self.has_shards:  # which all processes put together as often, even for no rows
            ends = sorted({*ends} - {0}) or [0]
        total = torch.zeros(3, dtype=self.sums.dtype, device=self.world.device)
        for part, (start, end) in enumerate(itertools.pairwise([0, *ends])):
            images, place = batch.images[start:end], batch.row_offset + start
            sums, gradients = self._step(images, self.noise.state, place, dials, is_full=batch.rows == self._full)
            total += sums
            flat.take(gradients, add=part > 0)
        flat.raise_alarm(total)
        flat.all_reduce(self.world)
        return total

    def _at_risk(self) -> Iterator[Tensor]:
        """What a step changes before it is known, on the host or by the optimiser, that it must not."""
        yield from self.model.buffers()
        if self.nonfinite.on_host:
            return
        if self._average is not None:
            yield from self._average.model.parameters()
        yield from self._scale()
        if not self._heeds_found:
            yield from self._weights.parameters
            for state in self.optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))

    def _dials_of(self, rows: int) -> StepScalars:
        if rows not in self._batch_weights:
            value = (
                self._recipe.loss_weight / rows if (self._recipe.reduction == "batchmean") else self._recipe.loss_weight
            )
            self._batch_weights[rows] = torch.full_like(self._one, value)
        weight = self._batch_weights[rows]
        return self._dials._replace(weight=self.scaler.scale(weight) if self.scaler.is_enabled() else weight)

    def _update(self, gradients: list[Tensor]) -> None:
        if isinstance(self.optimizer, Adam):
            self.optimizer.step_with(gradients)
            return
        for parameter, gradient in zip(self._weights.parameters, self._laid_out(gradients), strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def _update_at_once(self, flat: FlatGradients) -> None:
        if self.scaler.is_enabled() and not self.nonfinite.on_host:
            flat.spoil(self.nonfinite.found)
        if self._clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            flat.clip(self._clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @property
    def result(self) -> VAE:
        """The model that is evaluated and looked at: the average of the weights where the run keeps one."""
        return self.model if self._average is None else self._average.model

    @property
    def startup_s(self) -> float:
        """Seconds spent on tracing and compiling; steps of weights in parts are neither traced nor compiled."""
        return self._step.startup_s if isinstance(self._step, Step) else 0.0

    def looked_at(self) -> AbstractContextManager[Any]:
        """Around what computes with ``result``: weights in parts are put together in the type of the products."""
        return self._autocast() if self.has_shards else nullcontext()

    @torch.no_grad()
    def evaluate(self, loader: Loader, epoch: int) -> Terms:
        """The ELBO over a loader's images, with one sample of z each; the same noise for any batch or world size."""
        noise = Noise(self.seed, epoch, device=self.world.device)
        sums = torch.zeros(3, dtype=torch.float64, device=self.world.device)
        images = 0
        dials = StepScalars(self._one, self._one, self._one)
        evaluated = self._evaluated.eval()
        for batch in loader:
            with self._autocast():
                _, terms = evaluated(batch.images, noise.state, images + batch.row_offset, EVAL_STREAM, dials)
            sums += terms
            images += batch.rows
        evaluated.train()
        self.world.all_reduce(sums)
        return Terms.of(sums, images)

    def is_finite(self) -> bool:
        """Whether all weights are: a step too long makes them infinite by a gradient that is not. Waits."""
        averages = [] if self._average is None else self._average.model.parameters()
        tensors = [tensor.detach() for tensor in (*self._weights.parameters, *averages)]
        if self.world.device.type == "cpu":  # in one pass: at each save the training waits for this
            finite = all_finite(tensors)
        else:
            finite = bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
        return not self.world.any(not finite)

    def back_to(self, step: int) -> None:
        """Count the steps since, which have changed nothing, as not taken."""
        self.noise.state[1] = step
        self.nonfinite.clear()

    def tensors(self) -> Iterator[Tensor]:
        """All that a step changes in place."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        yield from self._weights.copies.values()
        if self._average is not None:
            yield from self._average.model.parameters()
        for state in self.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))
        yield from (self.sums, self.noise.state, self._dials.beta, self._dials.capacity)
        yield from (self.nonfinite.found, self.nonfinite.record, *self._scale())

    def _scale(self) -> list[Tensor]:
        """The tensors of the loss scale, where there is one."""
        if not self.scaler.is_enabled():
            return []
        return [tensor for tensor in (self.scaler._scale, self.scaler._growth_tracker) if tensor is not None]

    def weights(self) -> dict[str, Tensor]:
        """The model and the average of its weights, as a checkpoint names them; not copied. All processes have to ask.

        Of shards, the main process alone gets what they are parts of.
        """
        tensors = {f"model.{name}": tensor for name, tensor in self._weights.state_dict().items()}
        if self._average is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self._average.model.named_parameters()}
        return tensors

    def state(self) -> Checkpoint:
        """Weights and their average, optimiser, loss scale and noise key, as a checkpoint keeps them."""
        optimizer, optimizer_values = flatten_optimizer(self._weights.gathered(self.optimizer.state_dict()))
        tensors = self.weights()
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.items()}
        return Checkpoint(
            {**tensors, "noise": self.noise.state},
            {"optimizer": optimizer_values, "scaler": self.scaler.state_dict()},
        )

    def load_state(self, saved: Checkpoint) -> None:
        """Take over what :meth:`state` gave. Raises InputError for a checkpoint of another network or optimiser."""
        self._weights.load_state_dict(fitting(self.model, saved, average=False))
        if self._average is not None:
            load_weights(self._average.model, saved, average=True)
        state = self._weights.scattered(unflatten_optimizer(saved.part("optimizer"), saved.values["optimizer"]))
        check_state(self.optimizer, state, saved.values.get("step", 0))
        for kept, own in zip(state["param_groups"], self.optimizer.param_groups, strict=True):
            # The form is this device's, and the rate may be a tensor of the schedule's.
            kept |= {key: own[key] for key in FORM if key in own}
        self.optimizer.load_state_dict(state)
        for parameter, values in self.optimizer.state.items():
            for key, value in values.items():  # files keep no memory format
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        self.scaler.load_state_dict(saved.values["scaler"])
        self.noise.state.copy_(saved.tensors["noise"])


def _autocast(dtype: torch.dtype | None, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    return nullcontext if dtype is None else lambda: torch.autocast(device.type, dtype)
