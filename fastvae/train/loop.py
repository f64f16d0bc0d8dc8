"""The training loop: epochs, evaluation, logging, checkpoints, and how a run ends."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch

from fastvae.data import Loader
from fastvae.models import VAE
from fastvae.models.modes import eval_mode
from fastvae.utils.errors import InputError
from fastvae.utils.terminal import Terminal

from .checkpoint.best import Best
from .checkpoint.rng import caller_states, gather_rng_states, preserve_rng_state, restore_rng, seed_rng
from .checkpoint.writer import CheckpointWriter
from .config import Origin, SettledConfig
from .config.schedules import plan
from .distributed.threads import Threads
from .distributed.world import World
from .engine import Engine
from .graphs.replay import Replay
from .report.epoch_end import Callback, EpochEnd
from .report.figures import reconstruction_grid
from .report.metrics import Metrics
from .report.run_folder import RunFolder
from .report.run_log import RunLog
from .report.step_metrics import StepMetrics
from .run_state import RunState, refusing_foreign
from .step.hooks import Hooks
from .step.nonfinite import REMEDY
from .stopping import Interrupt, Stopping

LOG_EVERY = 50  # steps between reads of the device's sums


class _RewoundError(InputError):
    """A step was not finite. The loop is where it was before that step, and has saved it."""


class Loop:
    """The training loop of one rank. Rank 0 has a ``folder``, and alone logs and saves."""

    def __init__(
        self,
        config: SettledConfig,
        model: VAE,
        loader: Loader,
        test_loader: Loader,
        world: World,
        folder: RunFolder | None,
        console: Terminal,
        callbacks: Sequence[Callback] = (),
        hooks: Hooks | None = None,
        origin: Origin | None = None,
        threads: Threads | None = None,
    ) -> None:
        self.config = config
        self.world = world
        self.folder = folder
        self.console = console
        self.epochs = config.epochs
        self.origin = origin = origin or Origin()
        self.loader = loader
        self.test_loader = test_loader
        self._hooks = hooks or Hooks()
        self._threads = threads
        schedules = plan(config, len(loader), origin)
        self.engine = Engine(model, config, world, schedules, loader.count, self._hooks, self._tell)
        self.step = 0
        self.epoch = 0  # finished ones
        self.epoch_seconds: list[float] = []  # of training alone, for each epoch that this process finished
        self.startup_s = 0.0  # this process's tracing, compiling and capturing, which no epoch's seconds include
        self.test: Metrics | None = None  # of the last evaluation
        self.best = Best()
        self.is_saved_before_error = False
        self._writer = CheckpointWriter()
        self._log = RunLog(world, folder, console, config.steps(len(loader), origin), self.epochs)
        self._callbacks = callbacks
        self._replay = Replay(self.engine, loader, console, enabled=config.replay != "no")
        self._metrics = StepMetrics(world, self._log, self._check_finite)
        self._interrupt = Interrupt()
        self._untouched = caller_states()

    def _tell(self, line: str) -> None:
        self.console.print(f"fastvae: {line}", markup=False)

    def fit(self) -> int:
        """Train to the end. Returns the exit status: 0, or 128 + the signal that ended the run early."""
        self._stopping = Stopping(self.config, self.world, self._interrupt)  # starts the time budget
        try:
            return self._fit()
        finally:
            self._replay.release()  # an error's traceback keeps this loop until after the process group is gone

    def _fit(self) -> int:
        epoch_steps = len(self.loader)
        stopping = self._stopping
        with self._interrupt, self._writer, self._log, self._saving_before_error(), stopping.saving(self.save):
            while not (self.epoch >= self.epochs or stopping.is_stale(self.epoch, self.best) or stopping.by_callback):
                if not stopping.is_spent(self.step):
                    self._metrics.meter.resume()
                    self._train_epoch()
                    if stopping.by_signal:
                        self.save()
                        return stopping.status
                if self.step < self.origin.first_step(self.epoch + 1, epoch_steps):
                    break
                self._finish_epoch()
            first = self.origin.first_step(self.epoch, epoch_steps)
            if self.step > first:  # ended in mid-epoch
                self._report(self.epoch + 1, self.epoch)
            if self.epoch < self.epochs:
                self.console.print(stopping.reason(self.step, self.epoch, first, self.best))
            if self.test is None:  # nothing was left to train
                self.test, _, _ = self._evaluate(self.epoch)
            self.save()
            with self.world.raise_together():  # written to the end before any rank goes on to the next collective
                self._writer.wait()
        return stopping.status if stopping.by_signal else 0

    @contextmanager
    def _saving_before_error(self) -> Iterator[None]:
        """Save the steps before one that raises an error; not if that had begun to change the weights.

        With several processes, the other ranks may not meet this one to save.
        """
        try:
            yield
        except _RewoundError:
            raise
        except BaseException:
            with suppress(Exception):  # the error to report is the first; a GPU that failed cannot even tell its step
                has_steps = self.world.size == 1 and self._interrupt.is_held_back
                if has_steps and self.engine.counter.step.item() == self.step:
                    done = self.step - self.origin.first_step(self.epoch, len(self.loader))
                    self.loader.load_state_dict({"epoch": self.epoch, "step": done})
                    self.save()
                    self._writer.wait()
                    self.is_saved_before_error = True
            raise

    def _train_epoch(self) -> None:
        """Take the remaining steps of the epoch, unless a signal or a limit ends the run before."""
        self._replay.prepare()
        end = self.config.steps(len(self.loader), self.origin)
        while steps := self._replay.fitting(end - self.step):
            images = steps * self.loader.batch_size
            with self._hooks.around_step(steps, images):
                self._replay.run(steps)
            self._count(steps, images)
            if self._stopping.ends_after(self.step):
                return
        for batch in self._hooks.batches(self.loader):
            with self._hooks.around_step(1, batch.rows):
                self.engine.train_step(batch)
            self._count(1, batch.rows)
            if self._stopping.ends_after(self.step):
                return

    def _count(self, steps: int, images: int) -> None:
        """Count the steps just taken; log and save if they crossed a step at which that is due."""
        before = self.step
        self.step += steps
        self._metrics.meter.images += images
        startup = self.engine.startup_s + self._replay.capture_s
        self._metrics.meter.leave_out(startup - self.startup_s)
        self.startup_s = startup
        if before // LOG_EVERY != self.step // LOG_EVERY:
            self._metrics.request(self.step, self.engine.sums, self.engine.nonfinite.log[:1])
            self._metrics.log(self.epoch + 1)
            if self._threads is not None:
                self._threads.fit()
        if before // self.config.checkpoint_every != self.step // self.config.checkpoint_every:
            self.save()

    def _finish_epoch(self) -> None:
        train, test = self._report(self.epoch + 1, self.epoch + 1)
        self.epoch += 1
        self.epoch_seconds.append(self._metrics.meter.seconds)
        self.best.offer(test.loss, self.epoch, self.step, self.engine.weights)
        self.engine.sums.zero_()
        self.engine.nonfinite.log.zero_()
        self._metrics.restart()
        self.loader.set_epoch(self.epoch)
        if self._callbacks:
            self._call_back(train, test)

    def _call_back(self, train: Metrics, test: Metrics) -> None:
        """Run the callbacks, and drop the records and graphs of steps that they changed, by a frozen layer say."""
        before = set(self.engine.model.parameters())
        with self.engine.using_result() as model:
            end = EpochEnd(self.epoch, self.step, train, test, model)
            for callback in self._callbacks:
                if callback(end):
                    self._stopping.by_callback = True
        self.engine.recheck(before)
        self._replay.recheck()

    def _report(self, epoch: int, finished: int) -> tuple[Metrics, Metrics]:
        """Evaluate and log an epoch, or the part of it that was trained. Returns the training and the test metrics.

        The noise of the evaluation is that of the number of ``finished`` epochs.
        """
        self._check_finite()
        skipped = self.engine.nonfinite.report(self.world)
        if skipped.found:
            line = skipped.of_epoch(epoch, self.step - self.origin.first_step(epoch - 1, len(self.loader)))
            self.console.print(line, style="yellow")
        sums = self.engine.sums.clone()
        self.world.all_reduce(sums)
        train = Metrics.from_sums(sums, self._metrics.meter.images)  # synchronizes, then the clock stops
        self._metrics.meter.pause()
        self._metrics.log(self.epoch + 1, wait=True)
        with preserve_rng_state(self.world.device):  # evaluating must not change what the run draws next
            test, test_rate, figure = self._evaluate(finished)
        self._log.log_epoch(self.step, epoch, (train, self._metrics.meter.rate()), (test, test_rate), figure)
        self.test = test
        return train, test

    def _evaluate(self, finished: int) -> tuple[Metrics, float, torch.Tensor]:
        """Return the test metrics, the images evaluated per second, and a grid of reconstructions (3, H, W)."""
        started = time.perf_counter()
        test = self.engine.evaluate(self._stopping.until_signal(self.test_loader), finished)
        rate = self.test_loader.count / (time.perf_counter() - started)
        images = self.test_loader.first(8)
        with self.engine.using_result() as model, eval_mode(model):  # no BatchNorm's statistics change
            grid = reconstruction_grid(images, model.reconstruct(images))
        return test, rate, grid

    def _check_finite(self) -> None:
        """After a non-finite step, unless such steps are skipped: rewind to before it, save, raise InputError."""
        if self.config.on_nonfinite == "skip":
            return
        report = self.engine.nonfinite.report(self.world)
        if not report.found:
            return
        self.step = report.step - 1
        self.epoch, done = self.origin.place(self.step, len(self.loader))
        self.loader.load_state_dict({"epoch": self.epoch, "step": done})
        self.engine.rewind(self.step)
        self.save()
        self._writer.wait()
        raise _RewoundError(
            f"{report}: {REMEDY}; or go on from before it, which is saved, with --resume and --on-nonfinite skip"
        )

    def save(self) -> None:
        """Have a checkpoint written. Collective; rank 0 writes.

        Raises InputError, on every rank, if the weights are not finite or an earlier checkpoint could not be written.
        """
        self._check_finite()
        if not self.engine.is_finite():
            raise InputError(f"the weights are not finite after step {self.step}, and were not saved: {REMEDY}")
        now = self.state().to_checkpoint()
        with self.world.raise_together():
            if self.folder is not None:
                self._writer.save(self.folder.checkpoints, self.step, now, self.best)

    def state(self) -> RunState:
        """Return everything needed to resume after the last step. Collective.

        The tensors are still being trained: copy them before the next step.
        """
        engine = self.engine.state()
        sums = self.engine.sums.clone()
        nonfinite = self.engine.nonfinite.log.clone()
        for tensor in (sums, nonfinite[2:]):  # the ranks agree on the number and the first of the non-finite steps
            self.world.all_reduce(tensor)
        return RunState(
            step=self.step,
            epoch=self.epoch,
            loader=self.loader.state_dict(),
            best=self.best.values(),
            batch_size=self.loader.batch_size,
            origin=self.origin,
            meter={"seconds": self._metrics.meter.seconds, "images": self._metrics.meter.images},
            sums=sums,
            nonfinite=nonfinite,
            engine=engine,
            rng=gather_rng_states(self.world, self._untouched),
        )

    def apply(self, state: RunState) -> None:
        """Continue from a state that :func:`fastvae.train.run_state.restore` gave. Collective.

        Raises InputError for the state of another network, optimiser or data set.
        """
        with refusing_foreign():
            self.engine.load_state(state.engine)
            if self.world.is_rank_0:  # the sums are over all ranks: the others start at 0
                self.engine.sums[: len(state.sums)].copy_(state.sums)
            if state.nonfinite is not None and self.config.on_nonfinite == "skip":
                known = 5 if self.world.is_rank_0 else 2
                self.engine.nonfinite.log[:known].copy_(state.nonfinite[:known])
            self.step = state.step
            self.epoch = state.epoch
            restore_rng(state.rng, self.config.seed, self.step, self.world)
            self._untouched = caller_states(state.rng)
            self.loader.load_state_dict(state.loader)
            if state.best is not None:
                self.best.load(state.best)
            self._metrics.restart(state.meter["seconds"], state.meter["images"], self.engine.sums)
        self._forget_after()

    def start_fresh(self) -> None:
        """Start at the first step. A run that died before its first checkpoint leaves no metrics behind. Collective."""
        seed_rng(self.config.seed, 0, self.world)
        self._untouched = caller_states()
        self._forget_after()

    def _forget_after(self) -> None:
        """Drop the metrics that an earlier process logged after this step."""
        with self.world.raise_together():
            if self.folder is not None and self.folder.is_restart:
                self.folder.forget_after(self.step, self.epoch)
