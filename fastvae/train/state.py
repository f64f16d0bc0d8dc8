"""All that a run goes on from: taken from its loop, and given to another one."""

from typing import TYPE_CHECKING

from . import generators
from .checkpoint import Checkpoint
from .meter import Meter

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
    """Go on from a checkpoint: weights, optimiser, what is drawn, the place in the epoch, what was logged up to it."""
    engine, record = loop.engine, found.tensors.get("nonfinite")  # older versions kept none
    engine.load_state(found)
    if loop.world.is_main:  # the others add nothing to what all had summed together
        sums = found.tensors["sums"]
        engine.sums[: len(sums)].copy_(sums)  # older versions kept three
    if record is not None and loop.config.on_nonfinite == "skip":
        known = 5 if loop.world.is_main else 2
        engine.nonfinite.record[:known].copy_(record[:known])
    loop.step, loop.epoch = found.values["step"], found.values["epoch"]
    generators.go_on(found, loop.config.seed, loop.step, loop.world)
    loop.loader.load_state_dict(found.values["loader"])
    if "best" in found.values:  # older versions kept none
        loop.best.load(found.values["best"])
    loop.meter = Meter(**found.values["meter"])
    loop.meter.logged_sums = engine.sums.clone()
    with loop.world.together():
        if loop.folder is not None:
            loop.folder.forget_after(loop.step, loop.epoch)
