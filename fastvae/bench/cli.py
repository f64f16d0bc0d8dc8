"""``fastvae bench``: check the settings, run the race, report it, and return the exit status."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from rich.progress import track

from fastvae.bench.contenders import pythae
from fastvae.bench.contenders.entries import against_pythae, contenders, left_out, select
from fastvae.bench.contenders.workload import Entry, Workload
from fastvae.data import load
from fastvae.models import PRESETS
from fastvae.train.distributed.world import resolve_device
from fastvae.train.inputs import check_pixels
from fastvae.train.step.inductor import compiling
from fastvae.utils.errors import InputError
from fastvae.utils.settings import check_ranges
from fastvae.utils.terminal import Terminal

from .config import Bench
from .race import disagreements, race
from .report import content, plot, show, write_json


def bench(config: Bench) -> int:
    """Run the benchmark. Returns 0, or 1 if a comparison is void. Raises InputError for bad settings."""
    check_ranges(config)
    for path in (config.json, config.plot):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"{path} cannot be written, there is no folder {path.parent}: make it first")
    if config.plot is not None and config.plot.suffix.lower() != ".png":
        raise InputError(f"--plot is {config.plot}, but it is a PNG: name it {config.plot.with_suffix('.png')}")
    device = resolve_device(config.device)
    recipe = PRESETS[config.preset]
    dataset = load(config.data, config.data_dir, size=recipe.image_size)
    check_pixels(config.preset, dataset)
    workload = Workload(config.preset, recipe, dataset, config.batch_size or recipe.batch_size, device, config.steps)
    workloads = [(workload, contenders(workload, config.compile))]
    if pythae.installed():
        theirs = replace(workload, name="pythae's MLP", recipe=pythae.RECIPE)
        theirs = replace(theirs, batch_size=config.batch_size or pythae.RECIPE.batch_size)
        workloads.append((theirs, against_pythae(theirs, config.compile)))
    for workload, _ in workloads:
        if config.steps is not None and config.steps >= workload.epoch_steps:
            raise InputError(
                f"--steps is {config.steps}, but an epoch has {workload.epoch_steps}, and the first of a slice is not "
                f"timed: use at most {workload.epoch_steps - 1}, or leave it out"
            )
    absent = left_out(device)
    fields = select(config.contenders, *(entries for _, entries in workloads), absent=absent)
    workloads = [(workload, entries) for (workload, _), entries in zip(workloads, fields, strict=True)]
    with compiling():
        return _run(config, workloads, absent)


def _run(
    config: Bench, workloads: list[tuple[Workload, list[Entry]]], absent: Mapping[str, str] = MappingProxyType({})
) -> int:
    console = Terminal()
    if not console.is_terminal:
        console.width = 160  # in a file, the table is not folded
    comparisons = []
    void = False
    for number, (workload, entries) in enumerate(workloads):
        if not entries:  # none of its contenders was chosen
            continue
        progress: partial[Iterable[int]] = partial(track, description=workload.name, console=console, transient=True)
        missed = {} if number else absent  # with pythae, jax does not race
        results = race(workload, entries, config.epochs, config.seeds, progress)
        show(console, workload, results, missed)
        objections = disagreements(results)
        for objection in objections:
            console.print(f"void: the losses differ by more than 2 %: {objection}")
        void = void or bool(objections)
        comparisons.append(content(workload, results, objections, missed))
        if config.json is not None:  # after each comparison, so that a later failure loses nothing
            write_json(config.json, workload.device, comparisons)
        if config.plot is not None:
            plot(config.plot.with_stem(f"{config.plot.stem}-pythae") if number else config.plot, workload, results)
    return 1 if void else 0
