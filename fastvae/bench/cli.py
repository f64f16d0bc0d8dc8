"""``fastvae bench``: from settings to a race, its report and an exit status."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from rich.progress import track

from fastvae.bench.contenders.workload import Entry, Task
from fastvae.data import load
from fastvae.models import PRESETS
from fastvae.train.config import TrainConfig
from fastvae.train.distributed.world import resolve_device
from fastvae.train.inputs import check_pixels
from fastvae.train.step.inductor import compiling
from fastvae.utils.errors import InputError
from fastvae.utils.settings import check_ranges
from fastvae.utils.terminal import Terminal

from .config import Bench
from .contenders import pythae
from .contenders.choose import against_pythae, chosen, contenders
from .race import disagreements, race
from .report import content, plot, show, write_json


def bench(config: Bench) -> int:
    """Run the race. Returns 0, or 1 if a comparison is void. Raises InputError for what the user can mend."""
    check_ranges(config)
    for path in (config.json, config.plot):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"{path} cannot be written, there is no folder {path.parent}: make it first")
    if config.plot is not None and config.plot.suffix.lower() != ".png":
        raise InputError(f"--plot is {config.plot}, but it is a PNG: name it {config.plot.with_suffix('.png')}")
    device = resolve_device(config.device)
    recipe = PRESETS[config.preset]
    dataset = load(config.data, config.data_dir, size=recipe.image_size)
    check_pixels(TrainConfig(preset=config.preset), dataset)
    task = Task(config.preset, recipe, dataset, config.batch_size or recipe.batch_size, device, config.steps)
    tasks = [(task, contenders(task, config.compile))]
    if pythae.installed():
        theirs = replace(task, name="pythae's MLP", recipe=pythae.RECIPE)
        theirs = replace(theirs, batch_size=config.batch_size or pythae.RECIPE.batch_size)
        tasks.append((theirs, against_pythae(theirs, config.compile)))
    for task, _ in tasks:
        if config.steps is not None and config.steps >= task.epoch_steps:
            raise InputError(
                f"--steps is {config.steps}, but an epoch has {task.epoch_steps}, and the first of a slice is not "
                f"timed: use at most {task.epoch_steps - 1}, or leave it out"
            )
    fields = chosen(config.contenders, *(entries for _, entries in tasks))
    tasks = [(task, entries) for (task, _), entries in zip(tasks, fields, strict=True)]
    with compiling():
        return _run(config, tasks)


def _run(config: Bench, tasks: list[tuple[Task, list[Entry]]]) -> int:
    console = Terminal()
    if not console.is_terminal:
        console.width = 140  # a file need not fold the table
    comparisons, void = [], False
    for number, (task, entries) in enumerate(tasks):
        if not entries:  # none of its contenders was chosen
            continue
        progress: partial[Iterable[int]] = partial(track, description=task.name, console=console, transient=True)
        results = race(task, entries, config.epochs, config.seeds, progress)
        show(console, task, results)
        objections = disagreements(results)
        for objection in objections:
            console.print(f"void: the losses differ by more than 2 %: {objection}")
        void = void or bool(objections)
        comparisons.append(content(task, results, objections))
        if config.json is not None:  # after each, so that a later one's failure loses nothing
            write_json(config.json, task.device, comparisons)
        if config.plot is not None:
            plot(config.plot.with_stem(f"{config.plot.stem}-pythae") if number else config.plot, task, results)
    return 1 if void else 0
