"""All that a run goes on from: taken from its loop, and given to another one."""

from typing import Protocol

from fastvae.data import OrderedLoader
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason

from .checkpoint import rng as generators
from .checkpoint.best import Best
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.schema import Values, check
from .config import SettledConfig
from .distributed.world import World
from .engine import Engine
from .report.run_folder import RunFolder
from .report.throughput import Throughput


class Run(Protocol):
    """The parts of a run that a checkpoint is taken from, and given to."""

    config: SettledConfig
    world: World
    engine: Engine
    loader: OrderedLoader
    folder: RunFolder | None
    best: Best
    meter: Throughput
    step: int
    epoch: int


def gather(run: Run) -> Checkpoint:
    """What the run is after its last step, in tensors of its own, which trains on. All processes have to ask."""
    state = run.engine.state()
    sums, record = run.engine.sums.clone(), run.engine.nonfinite.record.clone()
    for tensor in (sums, record[2:]):  # the processes agree on the rest of the record
        run.world.all_reduce(tensor)
    values = {
        "step": run.step,
        "epoch": run.epoch,
        "loader": run.loader.state_dict(),
        "best": run.best.values(),
        "meter": {"seconds": run.meter.seconds, "images": run.meter.images},
    }
    tensors = {**state.tensors, **generators.gather(run.world), "sums": sums, "nonfinite": record}
    return Checkpoint(tensors, {**state.values, **values})


def begin_anew(run: Run) -> None:
    """Begin at the first step; a run that died before its first checkpoint leaves nothing of itself."""
    generators.begin(run.config.seed, 0, run.world)
    if run.config.resume:
        with run.world.raise_together():
            if run.folder is not None:
                run.folder.forget_after(0, 0)


def restore(run: Run, found: Checkpoint) -> None:
    """Go on from a checkpoint: weights, optimiser, what is drawn, the place in the epoch, what was logged up to it.

    Raises InputError, in all processes, for a checkpoint that is not of this run.
    """
    values = _checked(run, found)
    try:
        _take_over(run, found, values)
    except InputError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        # It has the right checksum, so somebody else made it: torch's own words say what it has not.
        raise InputError(f"the checkpoint cannot be gone on from ({reason(error)}): use another one") from error
    with run.world.raise_together():
        if run.folder is not None:
            run.folder.forget_after(run.step, run.epoch)


def _take_over(run: Run, found: Checkpoint, values: Values) -> None:
    engine, record = run.engine, found.tensors.get("nonfinite")  # older versions kept none
    engine.load_state(found)
    if run.world.is_rank_0:  # the others add nothing to what all had summed together
        sums = found.tensors["sums"]
        engine.sums[: len(sums)].copy_(sums)  # older versions kept three
    if record is not None and run.config.on_nonfinite == "skip":
        known = 5 if run.world.is_rank_0 else 2
        engine.nonfinite.record[:known].copy_(record[:known])
    run.step, run.epoch = values["step"], values["epoch"]
    generators.go_on(found, run.config.seed, run.step, run.world)
    run.loader.load_state_dict({"epoch": values["epoch"], "step": values["loader"]["step"]})
    if "best" in values:  # older versions kept none
        run.best.load(values["best"])
    run.meter = Throughput(values["meter"]["seconds"], values["meter"]["images"])
    run.meter.logged_sums = engine.sums.clone()


def _checked(run: Run, found: Checkpoint) -> Values:
    """A checkpoint's values, if they are of one moment in this run. Raises InputError: it may be somebody else's."""
    values = check(found.values, Values, "the checkpoint's state")
    place, steps = values["loader"], len(run.loader)
    told = values["epoch"] * steps + place["step"]
    if values["step"] < 0 or values["step"] != told or place["epoch"] != values["epoch"]:
        raise InputError(
            f"the checkpoint is of step {values['step']}, but also of epoch {values['epoch']} and step {place['step']} "
            f"in epoch {place['epoch']}, with {steps} steps in each: resume with the same data and batch size, or use "
            "another checkpoint"
        )
    needed = {"sums": (3, 4), "noise": run.engine.noise.state.shape}
    for name, sizes in needed.items():
        tensor = found.tensors.get(name)
        if tensor is None or tensor.ndim != 1 or len(tensor) not in sizes:
            shape = None if tensor is None else tuple(tensor.shape)
            raise InputError(f"the checkpoint's {name} is {shape}, not ({sizes[-1]},): use another checkpoint")
    return values
