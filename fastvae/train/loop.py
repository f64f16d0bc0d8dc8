"""The loop: epochs, evaluation, logging, checkpoints, and how a run ends."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch

from fastvae.data import Batch, OrderedLoader
from fastvae.models import VAE
from fastvae.utils.errors import InputError
from fastvae.utils.terminal import Terminal

from .checkpoint import checkpoint
from .checkpoint.async_writer import AsyncWriter
from .checkpoint.best import Best
from .checkpoint.checkpoint import Checkpoint, Copies
from .checkpoint.rng import preserve_rng_state
from .config import SettledConfig
from .config.plan import plan
from .cuda_graph import Replay
from .distributed.world import World
from .engine import Engine
from .report.async_scalars import AsyncScalars
from .report.figures import reconstruction_grid
from .report.metrics import Terms
from .report.progress import RunProgress
from .report.run_folder import RunFolder
from .report.throughput import Throughput
from .run_state import gather
from .signals import Interrupt
from .step.nonfinite import REMEDY

LOG_EVERY = 50  # steps between looks at the device's sums


class EpochEnd(NamedTuple):
    """What a callback is told, in each process.

    epoch: how many are finished. step: how many steps. train, test: means, in nats per sample.
    model: as it is evaluated, the average of the weights where the run keeps one. With --parallel fsdp it has this
        process' parts of them: all processes have to call it alike.
    """

    epoch: int
    step: int
    train: Terms
    test: Terms
    model: VAE


# Called at the end of each epoch. What is true ends the run: all processes have to say the same.
Callback = Callable[[EpochEnd], object]


class Loop:
    """A training run in one process, or in one of many.

    The main process has a ``folder``, and alone logs and saves.
    """

    def __init__(
        self,
        config: SettledConfig,
        model: VAE,
        loader: OrderedLoader,
        test_loader: OrderedLoader,
        world: World,
        folder: RunFolder | None,
        console: Terminal,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.config, self.world, self.folder, self.console = config, world, folder, console
        self.epochs = config.epochs
        self.loader, self.test_loader = loader, test_loader
        self.engine = Engine(model, config, config.recipe, world, plan(config, len(loader)), loader.count)
        self.batches: Iterable[Batch] = loader  # --profile puts itself around these, and around steps
        self.around: Callable[[int, int], AbstractContextManager[None]] = lambda steps, images: nullcontext()
        self.step = 0
        self.epoch = 0  # finished ones
        self.epoch_seconds: list[float] = []  # training alone, of each epoch of this process
        self.startup_s = 0.0  # of this process, on tracing, compiling and capturing steps; in no epoch's seconds
        self.test: Terms | None = None  # of the last evaluation
        self.best = Best()
        self._saver, self._copies = AsyncWriter(), Copies()
        self._callbacks, self._ended = callbacks, False
        self.meter = Throughput()
        self._replay: Replay | None = None
        self._looked_for_replay = False
        self._crossed = False  # whether the last count of steps crossed a multiple of LOG_EVERY
        self._capture_s = 0.0
        self._readings: AsyncScalars[tuple[int, int]] = AsyncScalars()  # tagged with the step and its images
        self._deadline = float("inf")

    def fit(self) -> int:
        """Train to the end. Returns the exit status: 0, or 128 + the signal that ended it early."""
        if self.config.time_budget is not None:
            self._deadline = time.monotonic() + self.config.time_budget
        try:
            return self._fit()
        finally:
            if self._replay is not None:  # an error's traceback keeps this loop until after the processes have parted
                self._replay.release()
                self._replay = None

    def _fit(self) -> int:
        epoch_steps = len(self.loader)
        with (
            Interrupt() as interrupt,
            self._saver,
            RunProgress(self.console, self.config.steps(epoch_steps), self.epochs) as progress,
        ):
            while self.epoch < self.epochs and not self._is_stale() and not self._ended:
                if not self._is_spent():
                    self.meter.resume()
                    for _ in self._steps(progress):
                        if self._should_stop(interrupt):
                            self.save()
                            return 128 + (interrupt.signal or signal.SIGINT)
                        if self._is_spent():
                            break
                if self.step < (self.epoch + 1) * epoch_steps:
                    break
                self._finish_epoch(progress)
            if self.step > self.epoch * epoch_steps:  # ended in the middle of one
                self._report(progress, self.epoch + 1)
            self._say_why()
            self.save()
            with self.world.raise_together():  # to the end, before any goes on to what all have to do
                self._saver.wait()
        return 0

    def _is_spent(self) -> bool:
        """Whether the steps or the seconds that the run may take are over; several processes agree now and then."""
        if self.config.max_steps is not None and self.step >= self.config.max_steps:
            return True
        if self.config.time_budget is None:
            return False
        over = time.monotonic() > self._deadline
        return over if self.world.size == 1 else self._crossed and self.world.any(over)

    def _is_stale(self) -> bool:
        """Whether the test loss has not been below its best for too long."""
        return self.config.patience is not None and self.epoch - self.best.epoch >= self.config.patience

    def _say_why(self) -> None:
        """Tell what ended the run, unless its epochs did."""
        if self.epoch >= self.epochs:
            return
        if self._is_stale():
            best = f"the best is that of epoch {self.best.epoch}"
            self.console.print(f"no better test loss for {self.config.patience} epochs: {best}")
        elif self._ended:
            self.console.print(f"ended by a callback after epoch {self.epoch}")
        else:
            why = "--max-steps" if self.step == self.config.max_steps else "--time-budget"
            at_end = self.step == self.epoch * len(self.loader)
            where = f"after epoch {self.epoch}" if at_end else f"in epoch {self.epoch + 1}"
            self.console.print(f"ended by {why} at step {self.step}, {where}")

    def _steps(self, progress: RunProgress) -> Iterator[None]:
        """Take what is left of the epoch; the caller may look around after each step, or after each replay of some."""
        if not self._looked_for_replay:
            self._looked_for_replay, self._replay = True, self._captured()
        end = self.config.steps(len(self.loader))
        while self._replay is not None and (steps := self._replay.fitting(end - self.step)):
            with self.around(steps, steps * self.loader.batch_size):
                self._replay.run(steps)
            self._count(steps, steps * self.loader.batch_size, progress)
            yield
        for batch in self.batches:
            with self.around(1, batch.rows):
                self.engine.train_step(batch)
            self._count(1, batch.rows, progress)
            yield

    def _captured(self) -> Replay | None:
        """Steps to replay, where they can be.

        What the warm-up draws is not the run's: one that goes on warms up in another place.
        """
        if self.config.replay == "no":
            return None
        started, traced = time.perf_counter(), self.engine.startup_s
        with preserve_rng_state(self.world.device):
            replay = Replay.where_possible(
                self.engine, self.loader, lambda why: self.console.print(f"fastvae: {why}", markup=False)
            )
        if self.world.any(replay is None):  # all look around after as many steps
            if replay is not None:
                replay.release()
            return None
        self._capture_s = time.perf_counter() - started - (self.engine.startup_s - traced)
        return replay

    def _count(self, steps: int, images: int, progress: RunProgress) -> None:
        """Count steps that were taken; log and save where they crossed the place for it."""
        before, self.step = self.step, self.step + steps
        self.meter.images += images
        startup = self.engine.startup_s + self._capture_s
        self.meter.leave_out(startup - self.startup_s)
        self.startup_s = startup
        self._crossed = before // LOG_EVERY != self.step // LOG_EVERY
        if self._crossed:
            self._ask()
            self._show(progress)
        if before // self.config.checkpoint_every != self.step // self.config.checkpoint_every:
            self.save()

    def _ask(self) -> None:
        """Ask the device for the means since the last look, over all processes."""
        images = self.meter.images - self.meter.logged_images
        sums = self.engine.sums.clone()
        since = sums if self.meter.logged_sums is None else sums - self.meter.logged_sums
        self.meter.logged_sums, self.meter.logged_images = sums, self.meter.images
        self.world.all_reduce(since)
        self._readings.ask(torch.cat((since, self.engine.nonfinite.record[:1])), (self.step, images))

    def _show(self, progress: RunProgress, *, wait: bool = False) -> None:
        """Show and log what has arrived of what was asked for.

        Several processes have to see the same: they wait for all but the last, which was asked for just now.
        """
        lag = 1 if self.world.size > 1 and not wait else 0
        for values, (step, images) in self._readings.ready(wait=wait or lag > 0, but=lag):
            if values[-1] > 0:
                self._check_finite()
            terms = Terms.of(values[:-1], images)
            progress.show(step, self.epoch + 1, terms, self.meter.rate())
            with self.world.raise_together():
                if self.folder is not None:
                    self.folder.scalars("train", terms, step)

    def _finish_epoch(self, progress: RunProgress) -> None:
        self.epoch += 1
        train, test = self._report(progress, self.epoch)
        self.epoch_seconds.append(self.meter.seconds)
        self.best.offer(test.loss, self.epoch, self.step, self.engine.weights)
        self.engine.sums.zero_()
        self.engine.nonfinite.record.zero_()
        self.meter = Throughput()
        self.loader.set_epoch(self.epoch)
        end = EpochEnd(self.epoch, self.step, train, test, self.engine.result)
        with self.engine.looked_at():
            self._ended = bool([True for callback in self._callbacks if callback(end)])

    def _report(self, progress: RunProgress, epoch: int) -> tuple[Terms, Terms]:
        """Evaluate, show and log an epoch, or what there is of it. Returns the terms of both splits."""
        self._check_finite()
        skipped = self.engine.nonfinite.report(self.world)
        if skipped.found:
            self.console.print(f"epoch {epoch}: skipped {skipped.found} of its steps; {skipped}", style="yellow")
        sums = self.engine.sums.clone()
        self.world.all_reduce(sums)
        train = Terms.of(sums, self.meter.images)  # waits for the device, then the clock stops
        self.meter.pause()
        self._show(progress, wait=True)
        with preserve_rng_state(self.world.device):  # in mid-epoch, as one that is not looked at would go on
            test, test_rate, grid = self._look()
        progress.show(self.step, epoch, train, self.meter.rate())
        progress.epoch(epoch, train, test, self.meter.rate())
        with self.world.raise_together():
            if self.folder is not None:
                self.folder.log(epoch, self.step, "train", train, self.meter.rate())
                self.folder.log(epoch, self.step, "test", test, test_rate)
                self.folder.scalars("test", test, self.step)
                self.folder.picture("Test image - above: real data, below: reconstruction", grid, epoch)
        self.test = test
        return train, test

    def _look(self) -> tuple[Terms, float, torch.Tensor]:
        """The terms on the test images, how many of these were evaluated a second, and some reconstructions."""
        started = time.perf_counter()
        test = self.engine.evaluate(self.test_loader, self.epoch)
        rate = self.test_loader.count / (time.perf_counter() - started)
        pictures = self.test_loader.first(8)
        with self.engine.looked_at():
            grid = reconstruction_grid(pictures, self.engine.result.eval().reconstruct(pictures))
        self.engine.result.train()  # in between, no statistics of a BatchNorm move
        return test, rate, grid

    def _should_stop(self, interrupt: Interrupt) -> bool:
        """Whether all processes stop here: one looks after every step, several agree now and then."""
        if self.world.size == 1:
            return interrupt.signal is not None
        return self._crossed and self.world.any(interrupt.signal is not None)

    def _check_finite(self) -> None:
        """Unless they are skipped: from a step that was not finite go back to before it, save, raise InputError."""
        if self.config.on_nonfinite == "skip" or not (report := self.engine.nonfinite.report(self.world)).found:
            return
        self.step = report.step - 1
        self.epoch, done = divmod(self.step, len(self.loader))
        self.loader.load_state_dict({"epoch": self.epoch, "step": done})
        self.engine.back_to(self.step)
        self.save()
        self._saver.wait()
        raise InputError(
            f"{report}: {REMEDY}; or go on from before it, which is saved, with --resume --on-nonfinite skip"
        )

    def save(self) -> None:
        """Have a checkpoint written. All processes come here, the main one writes.

        Raises InputError, in all of them, for what is not finite, or if an earlier one could not be written.
        """
        self._check_finite()
        if not self.engine.is_finite():
            raise InputError(f"the weights are not finite after step {self.step}, and were not saved: {REMEDY}")
        now = gather(self)
        with self.world.raise_together():
            if self.folder is not None:
                folder, step = self.folder.checkpoints, self.step

                def capture() -> Callable[[], None]:
                    return partial(write, self._copies.take(now))

                def write(copied: Checkpoint) -> None:
                    self.best.save(folder)
                    checkpoint.save(folder, step, copied)
                    self._copies.give_back(copied)

                self._saver.submit(capture)
