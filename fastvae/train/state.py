"""All that a run goes on from: taken from its loop, and given to another one."""

from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import reason
from . import generators
from .checkpoint import Checkpoint
from .meter import Meter
from .schema import Values, check

if TYPE_CHECKING:
    from .loop import Loop


def gather(loop: "Loop") -> Checkpoint:
    """What the run is after its last step, in tensors of its own, which trains on. All processes have to ask."""
    state = loop.engine.state()
    sums, record = loop.engine.sums.clone(), loop.engine.nonfinite.record.clone()
    for tensor in (sums, record[2:]):  # the processes agree on the rest of the record
        loop.world.sum(tensor)
    values = {
        "step": loop.step,
        "epoch": loop.epoch,
        "loader": loop.loader.state_dict(),
        "best": loop.best.values(),
        "meter": {"seconds": loop.meter.seconds, "images": loop.meter.images},
    }
    tensors = {**state.tensors, **generators.gather(loop.world), "sums": sums, "nonfinite": record}
    return Checkpoint(tensors, {**state.values, **values})


def begin_anew(loop: "Loop") -> None:
    """Begin at the first step; a run that died before its first checkpoint leaves nothing of itself."""
    generators.begin(loop.config.seed, 0, loop.world)
    if loop.config.resume:
        with loop.world.together():
            if loop.folder is not None:
                loop.folder.forget_after(0, 0)


def restore(loop: "Loop", found: Checkpoint) -> None:
    """Go on from a checkpoint: weights, optimiser, what is drawn, the place in the epoch, what was logged up to it.

    Raises InputError, in all processes, for a checkpoint that is not of this run.
    """
    values = _checked(loop, found)
    try:
        _take_over(loop, found, values)
    except InputError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        # It has the right checksum, so somebody else made it: torch's own words say what it has not.
        raise InputError(f"the checkpoint cannot be gone on from ({reason(error)}): use another one") from error
    with loop.world.together():
        if loop.folder is not None:
            loop.folder.forget_after(loop.step, loop.epoch)


def _take_over(loop: "Loop", found: Checkpoint, values: Values) -> None:
    engine, record = loop.engine, found.tensors.get("nonfinite")  # older versions kept none
    engine.load_state(found)
    if loop.world.is_main:  # the others add nothing to what all had summed together
        sums = found.tensors["sums"]
        engine.sums[: len(sums)].copy_(sums)  # older versions kept three
    if record is not None and loop.config.on_nonfinite == "skip":
        known = 5 if loop.world.is_main else 2
        engine.nonfinite.record[:known].copy_(record[:known])
    loop.step, loop.epoch = values["step"], values["epoch"]
    generators.go_on(found, loop.config.seed, loop.step, loop.world)
    loop.loader.load_state_dict({"epoch": values["epoch"], "step": values["loader"]["step"]})
    if "best" in values:  # older versions kept none
        loop.best.load(values["best"])
    loop.meter = Meter(values["meter"]["seconds"], values["meter"]["images"])
    loop.meter.logged_sums = engine.sums.clone()


def _checked(loop: "Loop", found: Checkpoint) -> Values:
    """A checkpoint's values, if they are of one moment in this run. Raises InputError: it may be somebody else's."""
    values = check(found.values, Values, "the checkpoint's state")
    place, steps = values["loader"], len(loop.loader)
    told = values["epoch"] * steps + place["step"]
    if values["step"] < 0 or values["step"] != told or place["epoch"] != values["epoch"]:
        raise InputError(
            f"the checkpoint is of step {values['step']}, but also of epoch {values['epoch']} and step {place['step']} "
            f"in epoch {place['epoch']}, with {steps} steps in each: resume with the same data and batch size, or use "
            "another checkpoint"
        )
    needed = {"sums": (3, 4), "noise": loop.engine.noise.state.shape}
    for name, sizes in needed.items():
        tensor = found.tensors.get(name)
        if tensor is None or tensor.ndim != 1 or len(tensor) not in sizes:
            shape = None if tensor is None else tuple(tensor.shape)
            raise InputError(f"the checkpoint's {name} is {shape}, not ({sizes[-1]},): use another checkpoint")
    return values
