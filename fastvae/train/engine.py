"""One training step and one evaluation pass: the part that has to be fast."""

import itertools
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastvae.data import Batch
from fastvae.models import VAE
from fastvae.models.modes import eval_mode
from fastvae.ops import Noise
from fastvae.utils.precision import autocast_dtype

from .checkpoint.checkpoint import Checkpoint
from .checkpoint.train_state import TrainState
from .config import SettledConfig
from .distributed.coupled_rows import mean_kl, shares_kl
from .distributed.world import World
from .optim.build import make_optimizer
from .optim.ema import EMA
from .optim.flat_gradients import FlatGradients
from .optim.master_weights import MasterWeights
from .optim.output_layer import forward_context, sharp_output
from .optim.schedule import Plan, Schedule
from .optim.step_counter import StepCounter
from .optim.update import Update
from .optim.weights import Weights
from .report.metrics import Metrics
from .step.evaluate import evaluate
from .step.execution import Step
from .step.hooks import Hooks
from .step.loss import StepLoss, StepScalars
from .step.nonfinite import Nonfinite
from .step.rollback import Rollback

if TYPE_CHECKING:
    from .step.sharded import ShardedStep


class Engine:
    """A model, its optimiser and its step counter on one device of a :class:`World`: takes steps and evaluates.

    Args:
        model: the VAE; it is moved to the device and trained in place.
        config: the run's settings, resolved.
        world: the ranks; the engine trains on this rank's rows of each batch.
        plan: the schedules' tables; by default nothing changes from step to step.
        dataset_size: the number of training images, if the objective needs it.
        hooks: called around the gradients' all-reduce.
        tell: called with a line if the steps become eager.
    """

    def __init__(
        self,
        model: VAE,
        config: SettledConfig,
        world: World,
        plan: Plan | None = None,
        dataset_size: int = 0,
        hooks: Hooks | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        wide = torch.float64 if config.precision == "fp64" else torch.float32
        self.world = world
        self._hooks = hooks or Hooks()
        self._recipe = config.recipe
        self.is_sharded = config.parallel == "fsdp" and world.size > 1
        # These leave complex buffers complex, unlike nn.Module.to(dtype).
        self.model = model.double() if wide == torch.float64 else model.float()
        if not self.is_sharded:
            self.model.to(world.device)
            world.broadcast([*model.parameters(), *model.buffers()])
        self.seed = config.seed
        self.counter = StepCounter(config.seed, world.device)
        self.sums = torch.zeros(4, dtype=torch.float64, device=world.device)  # loss, nll, kl; images of skipped steps
        self.nonfinite = Nonfinite(self.counter, sticky=config.on_nonfinite == "stop", backend=config.backend)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
        sent = torch.bfloat16 if config.compress == "bf16" else None
        self.shares_kl = world.size * config.accumulate > 1 and shares_kl(config.objective, self.model)
        loss = partial(
            StepLoss,
            backend=config.backend,
            name=config.objective,
            options=config.objective_options(dataset_size),
            binarize=bool(config.binarize),
        )
        self._weights, self._step = self._make_step(config, loss, sent, tell)
        self._batch_kl = loss(self.model).batch_kl
        # Ranks may use different parameters of a model that fastvae does not know, and tell each other which at each
        # step. On a GPU that would wait for the device; recorded steps, which are the same on all ranks, need not.
        self._ranks_alike = self._are_ranks_alike()
        self._ranks_agree = world.device.type == "cpu" or config.execution == "eager"
        self.optimizer = make_optimizer(self._weights, config.optimizer, config.optimizer_options, config.lr)
        self._rollback = Rollback(self.nonfinite.found, on_host=self.nonfinite.on_host)
        if isinstance(self._step, Step):
            # Without a cycle through the engine, whose memory would stay until Python collects them.
            self._step.before_eager = partial(_note_buffers, self._rollback, self.model)
        one, beta, capacity = (
            torch.full((1,), value, dtype=wide, device=world.device) for value in (1, *config.beta_and_capacity)
        )
        self.scaler.scale(one)  # the first call makes the scaler's tensors
        self._one = one[0]
        self._scalars = StepScalars(one[0], beta[0], capacity[0])
        self._schedule = Schedule(plan or Plan(), self.optimizer, beta, capacity, self.counter)
        # The loss weight by batch size. The tensors never change: a CUDA graph has that of full batches.
        self._batch_weights: dict[int, Tensor] = {}
        self._micro_batches = config.accumulate
        self._full = min(config.batch_size, dataset_size or 2**63)  # rows of all batches but an epoch's last
        # Gradients go to the optimiser as they are, unless something needs all of them at once and in fp32.
        changed = self.scaler.is_enabled() or config.clip_norm is not None
        self._gradients: FlatGradients | None = None
        if world.size > 1 or config.accumulate > 1 or changed:
            self._gradients = FlatGradients(self._weights, world, self._micro_batches, sent, changed=changed)
        found = self.nonfinite.found
        self._update = Update(
            self._weights, self.optimizer, self.scaler, found, config.clip_norm, on_host=self.nonfinite.on_host
        )
        self._ema = None if config.ema is None else EMA(self.model, config.ema, self.counter.step)
        self._eval_loss = StepLoss(self.model, config.backend)
        self._state = TrainState(self._weights, self._ema, self.optimizer, self.scaler, self.counter)

    def _make_step(
        self,
        config: SettledConfig,
        loss: Callable[[VAE], StepLoss],
        sent: torch.dtype | None,
        tell: Callable[[str], None],
    ) -> tuple[Weights, "Step | ShardedStep"]:
        """Make the weights, whole or sharded, and the forward and backward through them under autocast."""
        low = autocast_dtype(config.precision)
        in_fp32 = None if low is None else sharp_output(self.model)
        self._autocast = forward_context(low, self.world.device, self.model, in_fp32)
        if self.is_sharded:
            from .distributed.fsdp import ShardedWeights  # noqa: PLC0415 -- it takes a second to import
            from .step.sharded import ShardedStep  # noqa: PLC0415 -- it imports the former

            shards = ShardedWeights(self.model, self.world, low, sent, in_fp32)
            return shards, ShardedStep(loss(self.model), shards, self._autocast)
        weights = MasterWeights(self.model, low, in_fp32)
        return weights, Step(loss(self.model), config.execution, self._autocast, weights.low_precision_copies, tell)

    def _are_ranks_alike(self) -> bool:
        """Return whether all ranks use the same parameters in each step for certain. Collective."""
        return not self.world.any(isinstance(self._step, Step) and not self._step.is_known)

    def train_step(self, batch: Batch) -> None:
        """Take one step: add the batch's sums to ``sums`` and advance the counter. Never synchronizes on a GPU.

        A step whose loss or gradient is not finite changes nothing else: ``nonfinite`` counts it.
        """
        self._schedule.set()
        scalars = self._scalars_for(batch.rows)
        self._rollback.remember(self._rollback_tensors(), () if self._step.is_recorded else self.model.modules())
        try:
            if self._gradients is None:
                is_full = batch.rows == self._full
                sums, gradients = self._step(
                    batch.images, self.counter.state, batch.row_offset, scalars, is_full=is_full
                )
                checked = [gradient for gradient in gradients if gradient is not None]
            else:
                sums = self._accumulate(self._gradients, batch, scalars)
                # Scaled gradients may overflow: the scaler tests them, and the alarm tests the loss.
                checked = [self._gradients.alarm if self.scaler.is_enabled() else self._gradients.buffer]
        except Exception:
            with suppress(Exception):  # on a GPU that failed nothing can be done
                self._rollback.restore()  # buffers that the forward pass has changed
            raise
        self.nonfinite.check(self.sums, sums, checked, rows=batch.rows, images=len(batch.images))
        if not self.nonfinite.skips:
            if self._gradients is None:
                self._update.take(gradients)
            else:
                self._update.take_flat(self._gradients)
            if self._ema is not None:
                self._ema.update()
        self._rollback.undo(self._rollback_tensors())
        if not self.nonfinite.skips and not self._update.writes_copies:
            self._weights.refresh_copies()

    def _accumulate(self, flat: FlatGradients, batch: Batch, scalars: StepScalars) -> Tensor:
        """Run forward and backward on each micro-batch, and sum the gradients over the ranks.

        The noise of a row is that of its place in the whole batch.
        """
        rows = len(batch.images)
        ends = [number * rows // self._micro_batches for number in range(1, self._micro_batches + 1)]
        if not self.is_sharded:  # sharded ranks gather the weights equally often, even for no rows
            ends = sorted({*ends} - {0}) or [0]
        parts = list(itertools.pairwise([0, *ends]))
        if self.shares_kl:
            with self._autocast():
                batch_kl = mean_kl(self._batch_kl, batch, parts, self.counter.state, self.world)
            scalars = scalars._replace(batch_kl=batch_kl)
        total = torch.zeros(3, dtype=self.sums.dtype, device=self.world.device)
        is_full = batch.rows == self._full
        for number, (start, end) in enumerate(parts):
            images = batch.images[start:end]
            row_offset = batch.row_offset + start
            if start == end and not self._ranks_alike:  # a rank without rows: the model may not take none
                flat.accumulate([None] * len(self._weights.parameters), is_first=number == 0)
                continue
            sums, gradients = self._step(images, self.counter.state, row_offset, scalars, is_full=is_full)
            total += sums
            flat.accumulate(gradients, is_first=number == 0)
        flat.raise_alarm(total)
        if not self.is_sharded:
            flat.leave_unused(self.world, alike=self._ranks_alike, agree=self._ranks_agree)
        if self.world.size > 1:
            with self._hooks.communicating():
                flat.all_reduce(self.world)
        return total

    def _rollback_tensors(self) -> Iterator[Tensor]:
        """Yield the tensors that a step may modify before it is known to be non-finite; they must then be restored."""
        yield from self._step.buffers()
        if self.nonfinite.on_host:
            return
        yield from self._state.ema_tensors()
        yield from self._state.loss_scale()
        if not self._update.skips:
            yield from self._weights.parameters
            yield from self._state.optimizer_tensors()

    def _scalars_for(self, rows: int) -> StepScalars:
        """Return the scalars of a step on a global batch of so many rows."""
        if rows not in self._batch_weights:
            value = self._recipe.loss_weight
            if self._recipe.reduction == "batchmean":
                value /= rows
            self._batch_weights[rows] = torch.full_like(self._one, value)
        weight = self._batch_weights[rows]
        return self._scalars._replace(weight=self.scaler.scale(weight) if self.scaler.is_enabled() else weight)

    def why_not_replayed(self, batch: Batch) -> str | None:
        """Return why another step may do something else than this one, or None. Reads the model's Python; runs none."""
        if not isinstance(self._step, Step):
            return "weights are sharded"
        scalars = self._scalars_for(batch.rows)
        return self._step.capture(batch.images, self.counter.state, batch.row_offset, scalars)

    @property
    def records(self) -> int:
        """Return how many records there have been of the steps of a model that fastvae does not know."""
        return self._step.records if isinstance(self._step, Step) else 0

    def recheck(self, before: Container[Tensor] = ()) -> None:
        """Look at the model again, after the caller's code had it, which had the parameters ``before`` it.

        Collective. Raises InputError if that added or unfroze parameters.
        """
        if isinstance(self._step, Step):
            self._step.recheck(before)
            self._ranks_alike = self._are_ranks_alike()
        self._weights.refresh_copies()  # it may have changed the weights

    @property
    def startup_s(self) -> float:
        """The seconds spent on tracing and compiling."""
        return self._step.startup_s

    @contextmanager
    def using_result(self) -> Iterator[VAE]:
        """Yield the model with the weights that are evaluated: their moving average, if the run keeps one.

        Sharded weights are gathered in their low precision inside the context.
        """
        averaged = nullcontext() if self._ema is None else self._ema.applied()
        with averaged, self._autocast() if self.is_sharded else nullcontext():
            yield self.model

    def evaluate(self, batches: Iterable[Batch], epoch: int) -> Metrics:
        """Return the ELBO over a loader's batches; the same noise for any batch size or number of ranks. Collective.

        It is that of the weights in their own fp32 or fp64, so that ``fastvae evaluate`` finds it again. Sharded
        weights are gathered in the precision of the steps.
        """
        noise = Noise(self.seed, epoch, device=self.world.device)
        with self.using_result() as model, eval_mode(model):
            sums, images = evaluate(self._eval_loss, batches, noise, all_reduce=self.world.all_reduce)
        return Metrics.from_sums(sums, images)

    def is_finite(self) -> bool:
        """Return whether all weights are finite. Synchronizes with the device. Collective."""
        return self._state.is_finite(self.world)

    def rewind(self, step: int) -> None:
        """Forget the steps since ``step``, which were not finite and so changed nothing."""
        self.counter.rewind(step)
        self.nonfinite.clear()

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor that a step changes in place."""
        yield from self._state.tensors()
        yield from (self.sums, self._scalars.beta, self._scalars.capacity, self.nonfinite.found, self.nonfinite.log)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights and their moving average by their names in a checkpoint; not copied. Collective."""
        return self._state.named_weights()

    def state(self) -> Checkpoint:
        """Return what a checkpoint saves of the engine; not copied. Collective."""
        return self._state.to_checkpoint()

    def load_state(self, saved: Checkpoint) -> None:
        """Load what :meth:`state` gave. Raises InputError for a checkpoint of another network or optimiser."""
        self._state.load(saved)


def _note_buffers(rollback: Rollback, model: VAE) -> None:
    rollback.note(model.modules())
