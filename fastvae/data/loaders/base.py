"""The base class of all loaders: the order of an epoch, the place in it, and each process's share of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor
from typing_extensions import Required

from fastvae.utils.errors import InputError

from .batch import Batch
from .shuffle import permutation


class Share(NamedTuple):
    """The rows of one step's global batch that this process has.

    start: where the global batch begins in the order of the epoch.
    first, end: the process's rows in it.
    rows: the size of the global batch.
    """

    start: int
    first: int
    end: int
    rows: int


class LoaderOptions(TypedDict, total=False):
    """The keywords of every loader, which :class:`Loader` describes."""

    batch_size: Required[int]
    seed: Required[int]
    device: torch.device | str
    shuffle: bool
    rank: int
    world_size: int


class Loader(ABC):
    """Batches that are a pure function of (seed, epoch, step), and a place that can be saved and found again.

    Loaders differ in how they fetch a batch, never in which images it holds. Rank r of W holds the rows
    ``[r * rows // W, (r + 1) * rows // W)`` of each global batch.

    Args:
        count: images in an epoch, >= 1.
        batch_size: rows of the **global** batch, over all processes; the last batch of an epoch may be smaller.
        seed: decides the order; the same for every process.
        device: where batches are delivered.
        shuffle: False delivers the images in their own order, in every epoch.
        rank, world_size: this process's place among all of them.

    Raises:
        InputError: a number out of its range, or no images.

    A ``break`` leaves the loader where it is: the next iteration continues from there.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if count < 1:
            raise InputError(f"a loader needs images, but has {count}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        if not 0 <= rank < world_size:
            raise InputError(f"rank must be in [0, world_size), but is {rank} of {world_size}")
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.device = torch.device(device)
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self._resumed = False
        self._order = torch.empty(count, dtype=torch.int64, device=self._order_device)
        self._epoch = 0
        self._step = 0
        self.set_epoch(0)

    @property
    def _order_device(self) -> torch.device | str:
        """The device of the order: the host, for loaders that fetch from there."""
        return "cpu"

    @abstractmethod
    def fetch(self, step: int) -> Batch:
        """Return the batch of one step of the current epoch, 0 <= step < len(self); the place in the epoch stays."""

    @abstractmethod
    def first(self, count: int) -> Tensor:
        """Return the first images in their own order, to look at: (count, C, H, W) on the device, or all if fewer."""

    def __len__(self) -> int:
        """Steps in an epoch; the last batch may be smaller."""
        return (self.count + self.batch_size - 1) // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Go to the first step of an epoch, 0 <= epoch < 2**32."""
        # Drawn even where it isn't used, so a bad seed or epoch is refused at once.
        order = permutation(self.count, self.seed, epoch, self._order.device)
        self._order.copy_(order if self.shuffle else torch.arange(self.count, device=self._order.device))
        self._epoch = epoch
        self._step = 0
        self._moved()

    def share(self, step: int) -> Share:
        """Return this process's part of a batch. Raises InputError for a step that the epoch does not have."""
        if not 0 <= step < len(self):
            raise InputError(f"step must be in [0, {len(self)}), not {step}")
        start = step * self.batch_size
        rows = min(self.batch_size, self.count - start)
        return Share(start, *self._part(rows), rows)

    def indices(self, step: int) -> Tensor:
        """Return which images this process has in a step's batch: int64 (b,), b may be 0."""
        share = self.share(step)
        return self._order[share.start + share.first : share.start + share.end]

    def _part(self, rows: int) -> tuple[int, int]:
        """Return the first row of a global batch that is this process's, and the row after its last."""
        return self.rank * rows // self.world_size, (self.rank + 1) * rows // self.world_size

    def _moved(self) -> None:  # noqa: B027 -- most loaders have nothing to do
        """Take note that the place in the epoch has changed."""

    def _deliver(self, steps: Sequence[int]) -> Iterator[Batch]:
        """Yield the batches of some steps in turn. The iterator is closed where the iteration ends early."""
        return map(self.fetch, steps)

    def __iter__(self) -> Iterator[Batch]:
        """Deliver the rest of the epoch; after its end, the same epoch again, unless the epoch was set."""
        if self._step == len(self) and not self._resumed:
            self._step = 0
            self._moved()
        self._resumed = False
        for batch in self._deliver(range(self._step, len(self))):
            self._step += 1  # before the yield: a state saved while this batch is in use names the next one
            self._moved()
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, and the next step to deliver: ``len(self)`` after the last one."""
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a saved place: the next iteration delivers exactly the rest of its epoch, which may be nothing.

        Raises:
            InputError: the epoch has no such step, because the state is of another data set or batch size, say.
        """
        epoch = state["epoch"]
        step = state["step"]
        if not 0 <= step <= len(self):
            raise InputError(
                f"the saved state is at step {step}, but an epoch has {len(self)} steps: "
                "resume with the same data and batch size"
            )
        self.set_epoch(epoch)
        self._step = step
        self._resumed = True
        self._moved()
