"""A training run, from its settings to its figures, on one rank."""

import math
import shlex
import statistics
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastvae.data import Dataset, Loader, ResidentLoader
from fastvae.data.loaders.reader_processes import killed_readers_told
from fastvae.models import VAE
from fastvae.models.modes import eval_mode
from fastvae.ops import Noise, bits_per_dimension
from fastvae.utils.machine import OtherLoad
from fastvae.utils.settings import as_typed, in_words_of_caller
from fastvae.utils.terminal import Terminal

from .binarize import check_binarize
from .checkpoint.write_errors import quiet_writers, writing
from .config import Origin, ResolvedConfig, SettledConfig, TrainConfig
from .config.validate import check_step_fits
from .distributed import coupled_rows
from .distributed.threads import Threads, fitting
from .distributed.world import World, open_world
from .inputs import check_depth, check_pixels, deliver, open_data
from .loop import Loop
from .measure import autotune
from .measure.profile import FILE, Profiling, profiled
from .report.bound import describe_bound
from .report.epoch_end import Callback
from .report.figures import reconstruction_grid, sample_grid, write_curves, write_image
from .report.metrics import Metrics
from .report.progress import table, trained
from .report.run_config import description_of
from .report.run_folder import RunFolder
from .start.begin import Beginning, begin
from .start.claim import Claim
from .start.initial_weights import load_initial
from .start.model_sizes import sizes_told
from .start.own_model import check_last_batch, prepared
from .start.preset_model import build_preset
from .start.process_state import process_state
from .start.python_state import unsaved_state_told
from .start.thread_policy import may_adapt
from .step.inductor import check_compiler
from .step.loss import SAMPLE_STREAM
from .stopping import stop_told

_LOOKED_AT = 32  # test images, to tell whether they are black and white


class Outcome(NamedTuple):
    """The end of a run.

    status: 0, or 128 + the signal that stopped it.
    test: the metrics of the last evaluation on the test set, in nats per sample; None if no epoch was started.
    folder: the run's.
    startup_s: the seconds that this process spent on tracing, compiling and capturing steps; no epoch includes them.
    """

    status: int
    test: Metrics | None
    folder: Path
    startup_s: float = 0.0


@in_words_of_caller(TrainConfig)
def run(
    config: TrainConfig,
    *,
    model: VAE | None = None,
    dataset: Dataset | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    load: OtherLoad | None = None,
) -> Outcome:
    """Train as ``config`` says, with the user's own model or data in place of the preset's, if given.

    ``load`` has been looking at the other programs on this machine for a while; otherwise the run begins to.

    Raises InputError for mistakes that the user can correct.
    """
    with ExitStack() as stack:
        world = stack.enter_context(open_world(config.device))
        console = Terminal(quiet=quiet or not world.is_rank_0)
        # Whatever is wrong with the folder or the settings is found before anything that takes time. A start that is
        # refused later, before its first step, leaves no folder behind.
        start = begin(config, world, console, own_model=model is not None)
        claim = stack.enter_context(Claim(start.folder))
        stack.enter_context(process_state(start.config, world.device))
        if start.config.execution == "compiled":
            with world.raise_together():
                check_compiler(world.device)
        own = _Own(model is not None, dataset is not None)
        dataset, fingerprint = open_data(start.config, world, dataset)
        with world.raise_together():
            if world.is_rank_0:
                start.check_images(dataset, fingerprint, own=own.data, console=console)
        settings = start.config
        check_step_fits(settings, dataset.shape, len(dataset.train), world.size)
        why_eager = None
        if model is not None:
            prepared_model = prepared(model, settings, dataset, world, console)
            settings, dataset, why_eager = stack.enter_context(prepared_model)
        model = _ready(start, model, dataset, world, console)
        loaders = deliver(settings, dataset, world)
        if own.model:
            check_last_batch(model, loaders.train, settings, world)
        state = start.state(loaders.train)
        adapts = may_adapt(settings, model, loaders.train)
        is_resident = isinstance(loaders.train, ResidentLoader)  # the processes of another would pass for programs
        threads = stack.enter_context(fitting(world, load or OtherLoad(), console, adapts=adapts, looks=is_resident))
        config, choice = _tune(settings, model, loaders.train, world, why_eager, console)
        told = f"on {_place(world, threads)}: {choice}; loader {loaders.choice}"
        stack.enter_context(quiet_writers())
        folder = start.folder
        profiling = Profiling(world.device, folder.path / FILE) if config.profile and folder is not None else None
        origin = Origin() if state is None else state.origin
        loop = Loop(
            config, model, loaders.train, loaders.test, world, folder, console, callbacks, profiling, origin=origin,
            threads=threads,
        )  # fmt: skip
        if state is not None:
            loop.apply(state)
        else:
            loop.start_fresh()
        claim.watch(loop)
        with world.raise_together():
            if folder is not None:
                folder.describe(
                    description_of(
                        config, dataset, world, own_model=own.model, own_data=own.data, fingerprint=fingerprint,
                        changes=start.history(),
                    )
                )  # fmt: skip
        start.tell(console)
        with sizes_told(model, dataset, loop) if own.model else nullcontext():
            status = _fit(loop, profiling, own, dataset, told, start.path)
            claim.note_end(status)
    return Outcome(status, loop.test, start.path, loop.startup_s)


class _Own(NamedTuple):
    """The parts of a run that the caller brought."""

    model: bool
    data: bool


def _place(world: World, threads: Threads) -> str:
    """Return the device, the processes and, on a CPU, this process's threads, in words."""
    place = f"{world.device}, {world.size} process{'es' if world.size > 1 else ''}"
    return f"{place}, {threads}" if world.device.type == "cpu" else place


def _ready(start: Beginning, model: VAE | None, dataset: Dataset, world: World, console: Terminal) -> VAE:
    """Return the model with its initial weights: the caller's own, or the preset's. Raises InputError. Collective."""
    if model is None:
        check_pixels(start.config.preset, dataset)
        model = build_preset(start.config, dataset, world)
        check_depth(dataset, model.likelihood)
    if start.config.binarize:
        check_binarize(dataset, model.likelihood)
    if start.config.init_from is not None and start.found is None:
        load_initial(model, start.config.init_from, world, console)
    return model


def _fit(loop: Loop, profiling: Profiling | None, own: _Own, dataset: Dataset, told: str, path: Path) -> int:
    """Train, say what is done and how it ended, and draw figures. Returns the exit status."""
    console = loop.console
    world = loop.world
    name = "a model of your own" if own.model else f"preset {loop.config.preset}"
    console.print(f"fastvae: {name} on {dataset.name}, {len(dataset.train):,} images, {told}")
    split = coupled_rows.told(
        loop.config.objective,
        loop.engine.model.likelihood,
        loop.engine.shares_kl,
        rows=min(loop.config.batch_size, len(dataset.train)),
        processes=world.size,
        accumulate=loop.config.accumulate,
    )
    if split is not None:
        console.print(f"fastvae: {split}")
    if loop.epoch >= loop.epochs:
        console.print(
            as_typed(f"all of its training ({trained(loop.epochs, 0)}) is done: give more --epochs", TrainConfig)
        )
    unsaved = unsaved_state_told(loop.engine.model, console) if own.model else nullcontext()
    try:
        with profiled(profiling, loop), killed_readers_told(), unsaved:
            status = loop.fit()
    except BaseException:
        if loop.is_saved_before_error:
            how = _how_to_resume(path, own, loop.config.nproc)
            console.print(f"saved at step {loop.step}, before an error: go on with {how}", markup=False)
        raise
    if status != 0:
        console.print(stop_told(status - 128, loop.step, _how_to_resume(path, own, loop.config.nproc)))
        return status
    samples, reconstructions = _figures(loop)
    if loop.folder is not None:
        own_name = "a model of your own" if own.model else None
        _finish(loop, own_name, dataset.name, loop.folder, console, samples, reconstructions)
    return status


def _how_to_resume(path: Path, own: _Own, nproc: int | None) -> str:
    """Return how the caller goes on with a run."""
    if own.model or own.data:
        brought = " and ".join(name for name, is_own in (("model", own.model), ("images", own.data)) if is_own)
        return f"TrainConfig(resume={str(path)!r}) and the same {brought}"
    return f"fastvae train --resume {shlex.quote(str(path))}" + ("" if nproc is None else f" --nproc {nproc}")


def _tune(
    config: ResolvedConfig, model: VAE, loader: Loader, world: World, why_eager: str | None, console: Terminal
) -> tuple[SettledConfig, autotune.Choice]:
    """Choose precision and execution, if the settings leave them open: by a trial, or the fixed defaults.

    ``why_eager`` is the reason for an execution that is chosen already.
    """
    if config.autotune and not config.deterministic:
        try:
            choice = autotune.choose(config, model, loader, config.steps(len(loader)), world, console.print)
        except autotune.UncopyableError:
            fixed = autotune.fixed(config, world.device)
            choice = replace(fixed, source="without a trial: the model cannot be copied")
    else:
        choice = autotune.fixed(config, world.device)
    if why_eager is not None:
        choice = replace(choice, source=why_eager)
    if choice.execution != "eager":
        # Recording a step imports it, which may draw from Python's random numbers: here, before their state is noted.
        import torch._dynamo  # noqa: F401, PLC0415

    return choice.apply(config), choice


def _figures(loop: Loop) -> tuple[Tensor, Tensor]:
    """Draw samples, and test images above their reconstructions. Collective, as weights may be sharded."""
    images = loop.test_loader.first(32)
    noise = Noise(loop.config.seed, stream=SAMPLE_STREAM, device=loop.world.device)
    with loop.engine.using_result() as model, eval_mode(model):
        if model.latent_shape is None:  # a model that was not run before the first step
            with torch.no_grad():
                model.latent_shape = tuple(model.encode(images[:1])[0].shape[1:])
        return sample_grid(model.sample(64, noise)), reconstruction_grid(images, model.reconstruct(images))


def _finish(
    loop: Loop,
    name: str | None,
    data: str,
    folder: RunFolder,
    console: Terminal,
    samples: Tensor,
    reconstructions: Tensor,
) -> None:
    with writing(folder.path / "samples.png"):
        figures = [
            write_curves(folder.metrics(), folder.path / "loss.png"),
            write_image(samples, folder.path / "samples.png"),
            write_image(reconstructions, folder.path / "reconstructions.png"),
        ]
    last = next(line for line in reversed(folder.metrics()) if line["split"] == "test")
    rows = {
        "test loss (negative ELBO)": f"{last['loss']:.2f} nats = nll {last['nll']:.2f} + kl {last['kl']:.2f}",
        "as a likelihood": describe_bound(
            last["loss"], loop.engine.model.likelihood, loop.test_loader.first(_LOOKED_AT)
        ),
        "run's folder": str(folder.path),
        "pictures in it": ", ".join(path.name for path in figures),
    }
    if name is None:
        rows["look closer"] = f"fastvae evaluate {shlex.quote(str(folder.path))}"
    if loop.engine.model.likelihood.is_code_length:
        bits = bits_per_dimension(last["loss"], math.prod(loop.test_loader.first(1).shape))
        rows["bits per dimension"] = f"{bits:.3f}, by the test loss"
    if loop.epoch_seconds:
        seconds = statistics.median(loop.epoch_seconds)
        rate = loop.loader.count / seconds
        rows["time per epoch"] = f"{seconds:.3f} s (median), {rate:,.0f} images/s"
    if loop.startup_s > 0:
        rows["start-up"] = f"{loop.startup_s:.1f} s (tracing and compiling), in no epoch's time"
    if loop.best.loss is not None and loop.best.epoch != loop.epoch:
        rows["best test loss"] = (
            f"{loop.best.loss:.2f} nats, epoch {loop.best.epoch}: look at it with --checkpoint best"
        )
    if loop.config.objective != "elbo" or loop.config.beta != 1:
        beta = f", beta {loop.config.beta:g}" if loop.config.beta != 1 else ""
        rows["minimised"] = f"{loop.config.objective}{beta}: the train loss is its own"
    done = loop.step - loop.origin.first_step(loop.epoch, len(loop.loader))
    console.print(table(f"{name or loop.config.preset} on {data}, {trained(loop.epoch, done)}", rows))
