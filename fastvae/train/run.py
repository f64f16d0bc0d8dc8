"""A training run, from its settings to its figures, on one rank."""

import math
import shlex
import signal
import statistics
from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastvae.data import Dataset, Loader
from fastvae.data.loaders.reader_processes import killed_readers_told
from fastvae.models import VAE, build
from fastvae.ops import Noise, bits_per_dimension
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason
from fastvae.utils.machine import check_fits
from fastvae.utils.terminal import Terminal

from .binarize import check_binarize
from .checkpoint import checkpoint
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.rng import preserve_rng_state
from .checkpoint.schema import Mark, check
from .checkpoint.write_errors import quiet_writers, writing
from .config import ResolvedConfig, SettledConfig
from .config.resume_check import check_resumable
from .config.validate import check_parallel
from .distributed.world import World, open_world
from .inputs import check_own_pixels, check_pixels, check_sizes, deliver, open_data
from .loop import Loop
from .measure import autotune
from .measure.profile import FILE, Profiling, profiled
from .report.epoch_end import Callback
from .report.figures import reconstruction_grid, sample_grid, write_curves, write_image
from .report.metrics import Metrics
from .report.progress import table
from .report.run_folder import RunFolder, agent, default_path, read_config
from .run_state import restore
from .step.loss import SAMPLE_STREAM
from .step.memory_format import choose_memory_format
from .step.torch_flags import torch_flags

_COPIES = 3  # of the weights' memory, at least, to train them: the weights and two moments
_STARTED: set[Path] = set()  # folders of the runs that this process started


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


def run(
    config: ResolvedConfig,
    *,
    model: VAE | None = None,
    dataset: Dataset | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> Outcome:
    """Train as ``config`` (resolved) says, with the user's own model or data in place of the preset's, if given.

    Raises InputError for mistakes that the user can correct.
    """
    with ExitStack() as stack:
        world = stack.enter_context(open_world(config.device))
        stack.enter_context(torch_flags(config, world.device))
        stack.enter_context(preserve_rng_state(world.device))
        dataset = open_data(config, world, dataset)
        console = Terminal(quiet=quiet or not world.is_rank_0)
        if model is not None:
            # On the CPU all ranks find the same, and a model that is to be sharded may be too large for one GPU.
            where = world.device if world.size == 1 else torch.device("cpu")
            dataset, told = stack.enter_context(choose_memory_format(model, dataset, config, where))
            if told is not None:
                console.print(f"fastvae: {told}")
        # The folder is made after everything that can be refused, so that a refused run leaves nothing behind.
        config, found = _begin(config, world, console)
        own = model is not None
        if model is None:
            check_pixels(config.preset, dataset)
            model = _build(config, dataset, world.device)
        else:
            check_own_pixels(model.likelihood, dataset)
            check_sizes(model, dataset, world.device)
        if config.binarize:
            check_binarize(dataset, model.likelihood)
        loaders = deliver(config, dataset, world)
        config, choice = _tune(config, model, loaders.train, world)
        path = config.out or default_path(config)
        with world.raise_together():
            folder = RunFolder(path, config, dataset, world, own_model=own) if world.is_rank_0 else None
        _STARTED.add(path.resolve())
        with quiet_writers(), closing(folder) if folder is not None else nullcontext():
            profiling = Profiling(world.device, folder.path / FILE) if config.profile and folder is not None else None
            loop = Loop(config, model, loaders.train, loaders.test, world, folder, console, callbacks, profiling)
            if found is not None:
                loop.apply(restore(found, len(loaders.train)))
            else:
                loop.start_fresh()
            name = "a model of your own" if own else f"preset {config.preset}"
            console.print(
                f"fastvae: {name} on {dataset.name}, {len(dataset.train):,} images, "
                f"on {world.device}, {world.size} process{'es' if world.size > 1 else ''}: {choice}; "
                f"loader {loaders.choice}"
            )
            with profiled(profiling, loop), killed_readers_told():
                status = loop.fit()
            if status != 0:
                console.print(
                    f"stopped by {signal.Signals(status - 128).name} at step {loop.step}, nothing is lost: "
                    f"go on with the same command and --out {path} --resume"
                )
            else:
                samples, reconstructions = _figures(loop)
                if folder is not None:
                    own_name = "a model of your own" if own else None
                    _finish(loop, own_name, dataset.name, folder, console, samples, reconstructions)
    return Outcome(status, loop.test, path, loop.startup_s)


def _build(config: ResolvedConfig, dataset: Dataset, device: torch.device) -> VAE:
    """Build the preset's model, initialized by the seed. Raises InputError for images or sizes that it cannot have."""
    shape = " x ".join(map(str, dataset.shape))
    try:
        with torch.device("meta"):  # which takes no memory
            outline = build(config.recipe, dataset.shape, config.latent_dim, config.width)
        size = sum(parameter.numel() * parameter.element_size() for parameter in outline.parameters())
        check_fits(
            size * (_COPIES if device.type == "cpu" else 1),
            f"to train preset {config.preset} on images of {shape}",
            "give a smaller --image-size, --latent-dim or --width",
        )
        torch.manual_seed(config.seed)
        return build(config.recipe, dataset.shape, config.latent_dim, config.width)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"preset {config.preset} cannot have images of {shape}: {error}") from error
    except RuntimeError as error:  # torch's, for sizes beyond the address space
        raise InputError(
            f"preset {config.preset} cannot have --latent-dim {config.latent_dim} and images of {shape} "
            f"({reason(error)}): give smaller ones"
        ) from error


def _tune(config: ResolvedConfig, model: VAE, loader: Loader, world: World) -> tuple[SettledConfig, autotune.Choice]:
    """Choose precision and execution, if the settings leave them open: by a trial, or the fixed defaults."""
    if config.autotune and not config.deterministic:
        choice = autotune.choose(config, model, loader, config.steps(len(loader)), world)
    else:
        choice = autotune.fixed(config, world.device)
    return choice.apply(config), choice


def _begin(config: ResolvedConfig, world: World, console: Terminal) -> tuple[ResolvedConfig, Checkpoint | None]:
    """Find the checkpoint to resume from, if any. Other ranks need not see the folder that rank 0 reads. Collective."""
    with world.raise_together():
        begun = _find_checkpoint(config, console) if world.is_rank_0 else (config, None)
    config, found = begun
    resume, precision, execution = world.broadcast_object((config.resume, config.precision, config.execution))
    config = replace(config, resume=resume, precision=precision, execution=execution)
    return config, checkpoint.broadcast(found, world)


def _find_checkpoint(config: ResolvedConfig, console: Terminal) -> tuple[ResolvedConfig, Checkpoint | None]:
    """Find the run's checkpoint on rank 0, and the precision and execution that it started with."""
    path = config.out
    if path is None or not (config.resume or _is_restart(path)):
        return config, None
    config = replace(config, resume=True)
    settings = read_config(path)["settings"]
    check_resumable(path, settings, config)
    for name in ("precision", "execution"):
        if getattr(config, name) == "auto":
            config = replace(config, **{name: settings.get(name, "auto")})
    check_parallel(config)
    if not checkpoint.are_in(path / "checkpoints"):
        console.print(f"{path} has no checkpoint yet: its run begins anew")
        return config, None
    file, found, skipped = checkpoint.newest(path / "checkpoints")
    for why in skipped:
        console.print(f"skipped: {why}", style="yellow")
    console.print(f"going on from {file}, step {check(found.values, Mark, f'{file}: its values')['step']}")
    return config, found


def _is_restart(path: Path) -> bool:
    """Return whether the elastic agent (torchrun's or our own) that started the run in a folder restarted this process.

    A run that another command started, or this very process, is not to be resumed without --resume.
    """
    if path.resolve() in _STARTED:
        return False
    try:
        return agent() is not None and read_config(path).get("agent") == agent()
    except InputError:
        return False


def _figures(loop: Loop) -> tuple[Tensor, Tensor]:
    """Draw samples, and test images above their reconstructions. Collective, as weights may be sharded."""
    model = loop.engine.result.eval()
    images = loop.test_loader.first(32)
    noise = Noise(loop.config.seed, stream=SAMPLE_STREAM, device=loop.world.device)
    with loop.engine.using_result():
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
    console.print(table(f"{name or loop.config.preset} on {data}, {loop.epoch} epochs", rows))
