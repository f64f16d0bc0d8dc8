"""``fastvae nll``: minus the log-likelihood of a run's test set, on one process or several, in a file that resumes."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from fastvae.train.distributed.world import World, open_world
from fastvae.utils.errors import InputError
from fastvae.utils.terminal import Terminal

from .log_likelihood import NllEstimator
from .nll_file import NllFile, origin
from .saved_run import SavedRun, Which

_console = Terminal()
_DRAW_EVERY = 0.2  # seconds
_LONG = 60  # seconds from which on the rest of the time is said in a line


@dataclass(frozen=True, kw_only=True)
class NllSettings:
    """The settings of ``fastvae nll``, named as its flags, which say more."""

    path: Path
    samples: int
    images: int | None
    precision: str
    data_dir: Path | None
    device: str
    which: Which
    data: str | None
    out: Path | None


def show_nll(asked: NllSettings) -> None:
    """Print ``-log p(x)`` of the test set, estimated by importance samples. Runs on every process of a launch.

    The constant that the likelihood's nll leaves out is in it. The samples use the seed of the run, so that the same
    call gives the same figure, up to rounding for any number of processes.
    """
    for flag, count in (("--samples", asked.samples), ("--images", 1 if asked.images is None else asked.images)):
        if count < 1:
            raise InputError(f"{flag} is {count}: it must be at least 1")
    with open_world(asked.device) as world:
        if not world.is_rank_0:
            logging.getLogger("fastvae").setLevel(logging.ERROR)  # rank 0 warns
        with world.raise_together():
            run, images, estimator = _prepare(asked, world)
        described = origin(
            run.model,
            images,
            preset=run.settings["preset"],
            samples=asked.samples,
            seed=run.settings["seed"],
            precision=asked.precision,
        )
        with world.raise_together():
            file = NllFile.open(asked.path, asked.out, described, len(images)) if world.is_rank_0 else None
        started = time.perf_counter()
        values = _estimate_missing(estimator, images, world, file)
        if file is not None:
            _report(asked, run, images, values, file, time.perf_counter() - started)


def _prepare(asked: NllSettings, world: World) -> tuple[SavedRun, Tensor, NllEstimator]:
    run = SavedRun.open(asked.path, world.device, asked.which, asked.data)
    if run.model.levels > 1:
        raise InputError(
            f"{asked.path} has {run.model.levels} levels of latents, but importance sampling supports one: "
            "use fastvae evaluate, whose ELBO covers all levels"
        )
    loader = run.announced_test_loader(asked.data_dir, quiet=not world.is_rank_0)
    if asked.images is not None and asked.images > loader.count:
        raise InputError(
            f"--images is {asked.images}, but the test set has {loader.count}: use at most --images {loader.count}"
        )
    images = loader.first(asked.images or loader.count)
    if asked.precision == "fp64":
        run.model.double()
    estimator = NllEstimator(run.model, asked.samples, run.settings["seed"], precision=asked.precision)
    return run, images, estimator


def _estimate_missing(estimator: NllEstimator, images: Tensor, world: World, file: NllFile | None) -> Tensor:
    """Return the estimates (N,) of all images; the ranks share those that the file of rank 0 does not have."""
    values = torch.full((len(images),), math.nan, dtype=torch.float64, device=world.device)
    if file is not None:
        values.copy_(file.values)
    world.broadcast([values])
    if file is not None and file.known > 0:
        Terminal(stderr=True).print(f"{file.path} has {file.known:,} of {len(images):,} images already")
    pieces = _pieces(values.isnan().tolist(), estimator.at_once(images))
    columns = TextColumn("importance samples"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # Without a thread that draws the bar, which would take time from the kernels.
    bar = Progress(
        *columns, console=Terminal(stderr=True), transient=True, auto_refresh=False, disable=not world.is_rank_0
    )
    drawn = 0.0
    started = time.monotonic()
    try:
        with bar:
            task = bar.add_task("", total=len(images), completed=int((~values.isnan()).sum()))
            for first in range(0, len(pieces), world.size):
                shares = pieces[first : first + world.size]
                part = torch.zeros(sum(len(share) for share in shares), dtype=torch.float64, device=world.device)
                if world.rank < len(shares):
                    own = shares[world.rank]
                    begin = sum(len(share) for share in shares[: world.rank])
                    part[begin : begin + len(own)] = estimator(images[own.start : own.stop], own.start)
                world.all_reduce(part)
                _check_finite(part)
                for share, estimates in zip(shares, part.split([len(share) for share in shares]), strict=True):
                    values[share.start : share.stop] = estimates
                if file is not None:
                    file.values = values.cpu()
                    file.save()
                now = time.monotonic()
                if first == 0 and world.is_rank_0:
                    _tell_time((now - started) * (len(pieces) / world.size - 1))
                bar.advance(task, len(part))
                if now > drawn + _DRAW_EVERY:
                    bar.refresh()
                    drawn = now
    finally:
        if file is not None and pieces:
            file.save(now=True)
            if file.is_kept and file.known < len(images):
                told = f"{file.path} has {file.known:,} of {len(images):,} images: the same command goes on from there"
                Terminal(stderr=True).print(told)
    return values.cpu()


def _check_finite(estimates: Tensor) -> None:
    if not estimates.isfinite().all():
        raise InputError(
            "-log p(x) of an image is not finite, as outputs of the model are NaN or infinite: use an earlier "
            "checkpoint (--checkpoint best, say), or --precision fp64"
        )


def _tell_time(seconds: float) -> None:
    if seconds > _LONG:
        Terminal(stderr=True).print(
            f"this takes about {seconds / 60:.0f} min: fewer --samples or --images take less, and --precision bf16 may"
        )


def _pieces(is_missing: list[bool], most: int) -> list[range]:
    """Split the images that are missing into ranges of neighbours, of a given number at most.

    >>> _pieces([True, True, True, False, True], 2)
    [range(0, 2), range(2, 3), range(4, 5)]
    """
    pieces: list[range] = []
    for index, missing in enumerate(is_missing):
        if not missing:
            continue
        if pieces and pieces[-1].stop == index and len(pieces[-1]) < most:
            pieces[-1] = range(pieces[-1].start, index + 1)
        else:
            pieces.append(range(index, index + 1))
    return pieces


def _report(asked: NllSettings, run: SavedRun, images: Tensor, values: Tensor, file: NllFile, seconds: float) -> None:
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else math.nan
    likelihood = run.model.likelihood
    constant = likelihood.left_out(math.prod(run.shape))
    line = (
        f"test -log p(x) {values.mean() + constant:.3f} nats, standard error {error:.3f} over {len(values):,} images, "
        f"{asked.samples:,} samples each, {asked.precision}, {seconds:.1f} s"
    )
    if constant != 0:
        line += f"; {constant:.3f} of it are the constant that nll leaves out"
    objection = likelihood.objection(images)
    if objection is not None:
        line += f"; no log-likelihood: {objection}"
    _console.print(line)
    if file.is_kept:
        _console.print(f"each image's nll is in {file.path}")
