"""The state of a run between two steps: what the loop hands to a checkpoint, and gets back on resuming."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastvae.utils.errors import InputError
from fastvae.utils.files import reason

from .checkpoint.checkpoint import Checkpoint
from .checkpoint.schema import Values, check
from .config import Origin


@dataclass(frozen=True)
class RunState:
    """Everything needed to resume after a step.

    The tensors are still being trained: copy them before the next step.

    step: steps taken. epoch: finished epochs. loader: the loader's place, the next step to deliver.
    best: the smallest test loss; older versions saved none.
    batch_size: images in a step; older versions saved none. origin: where epochs of so many steps begin.
    meter: images and seconds of the running epoch.
    sums: (4,) fp64 sums of the running epoch over all ranks, as the engine's; older versions saved three.
    nonfinite: (5,) fp64, the log of non-finite steps; older versions saved none.
    engine: weights, their moving average, optimiser, loss scale and step counter.
    rng: the states of torch's generators by their names in a checkpoint; older versions saved none.
    """

    step: int
    epoch: int
    loader: Mapping[str, int]
    best: Mapping[str, Any] | None
    batch_size: int
    origin: Origin
    meter: Mapping[str, Any]
    sums: Tensor
    nonfinite: Tensor | None
    engine: Checkpoint
    rng: dict[str, Tensor]

    def to_checkpoint(self) -> Checkpoint:
        """Return the state as a checkpoint; nothing is copied."""
        tensors = {**self.engine.tensors, **self.rng, "sums": self.sums}
        if self.nonfinite is not None:
            tensors["nonfinite"] = self.nonfinite
        values = {
            "step": self.step,
            "epoch": self.epoch,
            "loader": dict(self.loader),
            "best": self.best,
            "batch_size": self.batch_size,
            "origin": self.origin._asdict(),
            "meter": dict(self.meter),
        }
        return Checkpoint(tensors, {**self.engine.values, **values})


def restore(found: Checkpoint, images: int, batch_size: int, before: int | None = None) -> RunState:
    """Return the state in a checkpoint, checked: anybody may have made the file.

    Another batch size divides the images of the running epoch, whose order stays, into other batches. The run goes on
    with the batch that has the next image; up to ``batch_size - 1`` images that were seen already may come before it.

    Args:
        found: the checkpoint.
        images: in an epoch.
        batch_size: of the run that resumes.
        before: the batch size of the run so far, for a checkpoint that does not say; by default, the same.

    Raises:
        InputError: values or tensors are missing, of the wrong type, or not of one moment in such a run.
    """
    values = check(found.values, Values, "the checkpoint's state")
    place = values["loader"]
    before = values.get("batch_size", before or batch_size)
    origin = Origin(**values["origin"]) if "origin" in values else Origin()
    if before < 1:
        raise InputError(f"the checkpoint is of batches of {before} images: use another checkpoint")
    epoch_steps = -(-images // before)
    expected = origin.first_step(values["epoch"], epoch_steps) + place["step"]
    if (
        values["step"] < 0
        or values["step"] != expected
        or place["epoch"] != values["epoch"]
        or not 0 <= place["step"] <= epoch_steps
    ):
        raise InputError(
            f"the checkpoint is of step {values['step']}, but also of epoch {values['epoch']} and step {place['step']} "
            f"in epoch {place['epoch']}, with {epoch_steps} steps in each: resume with the same data, or use another "
            "checkpoint"
        )
    step = place["step"]
    if before != batch_size:
        step = -(-images // batch_size) if step == epoch_steps else step * before // batch_size
        origin = Origin(values["epoch"], values["step"] - step)
    for name, sizes in {"sums": (3, 4), "noise": (2,)}.items():
        tensor = found.tensors.get(name)
        if tensor is None or tensor.ndim != 1 or len(tensor) not in sizes:
            shape = None if tensor is None else tuple(tensor.shape)
            raise InputError(f"the checkpoint's {name} is {shape}, not ({sizes[-1]},): use another checkpoint")
    return RunState(
        step=values["step"],
        epoch=values["epoch"],
        loader={"epoch": place["epoch"], "step": step},
        best=values.get("best"),
        batch_size=batch_size,
        origin=origin,
        meter={"seconds": values["meter"]["seconds"], "images": values["meter"]["images"]},
        sums=found.tensors["sums"],
        nonfinite=found.tensors.get("nonfinite"),
        engine=found,
        rng=found.tensors,
    )


@contextmanager
def refusing_foreign() -> Iterator[None]:
    """Turn torch's errors about a checkpoint that fits no run of ours into InputError."""
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        # The checksum is right, so somebody else made the file: torch's own words say what it lacks.
        raise InputError(f"the run cannot resume from the checkpoint ({reason(error)}): use another one") from error
