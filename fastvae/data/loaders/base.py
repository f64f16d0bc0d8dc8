"""What all loaders share: the order of an epoch, the place in it, and each process' share of a batch."""

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
    """The rows of the batch of one step that are for this process.

    start: where the global batch begins in the order of the epoch.
    first, end: this process' rows of it.
    rows: of the global batch.
    """

    start: int
    first: int
    end: int
    rows: int


class Options(TypedDict, total=False):
    """The keywords of every loader; :class:`OrderedLoader` says what each does."""

    batch_size: Required[int]
    seed: Required[int]
    device: torch.device | str
    shuffle: bool
    rank: int
    world_size: int


class OrderedLoader(ABC):
    """A :class:`fastvae.data.Loader`, but for how it fetches what a step needs.

    Args:
        count: images in an epoch, >= 1.
        batch_size: rows of the **global** batch, over all processes; the last batch of an epoch may be smaller.
        seed: of the shuffling; the same for every process.
        device: where batches are delivered.
        shuffle: False delivers the images in their own order, in every epoch.
        rank, world_size: this process's place among all of them.

    Raises:
        InputError: a number out of its range, or no images.

    A ``break`` leaves the loader where it is: the next iteration goes on from there.
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
        self._epoch, self._step = 0, 0
        self.set_epoch(0)

    @property
    def _order_device(self) -> torch.device | str:
        """Where the order lives: on the host, for loaders that fetch from there."""
        return "cpu"

    @abstractmethod
    def fetch(self, step: int) -> Batch:
        """The batch of one step of the current epoch, 0 <= step < len(self); the place in the epoch stays."""

    @abstractmethod
    def first(self, count: int) -> Tensor:
        """The first images in their own order, on the device: to look at. (count, C, H, W), fewer if there are."""

    def __len__(self) -> int:
        """Steps in an epoch."""
        return (self.count + self.batch_size - 1) // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Go to the first step of an epoch, 0 <= epoch < 2**32."""
        # Drawn even where it isn't used, so a bad seed or epoch is refused at once.
        order = permutation(self.count, self.seed, epoch, self._order.device)
        self._order.copy_(order if self.shuffle else torch.arange(self.count, device=self._order.device))
        self._epoch, self._step = epoch, 0
        self._moved()

    def share(self, step: int) -> Share:
        """A process' part of a batch. Raises InputError for a step that the epoch does not have."""
        if not 0 <= step < len(self):
            raise InputError(f"step must be in [0, {len(self)}), not {step}")
        start = step * self.batch_size
        rows = min(self.batch_size, self.count - start)
        return Share(start, *self._part(rows), rows)

    def indices(self, step: int) -> Tensor:
        """The images that this process has of a step's batch: int64 (b,), b may be 0."""
        share = self.share(step)
        return self._order[share.start + share.first : share.start + share.end]

    def _part(self, rows: int) -> tuple[int, int]:
        """The rows of a global batch that are this process's: from, to."""
        return self.rank * rows // self.world_size, (self.rank + 1) * rows // self.world_size

    def _moved(self) -> None:  # noqa: B027 -- most loaders have nothing to do
        """The place in the epoch has changed."""

    def _deliver(self, steps: Sequence[int]) -> Iterator[Batch]:
        """The batches of some steps, in turn. Closed where the iteration ends early."""
        return map(self.fetch, steps)

    def __iter__(self) -> Iterator[Batch]:
        """Deliver what is left of the epoch; after its end, the same epoch again, unless the epoch was set."""
        if self._step == len(self) and not self._resumed:
            self._step = 0
            self._moved()
        self._resumed = False
        for batch in self._deliver(range(self._step, len(self))):
            self._step += 1  # before the yield: a state saved while this batch is in use names the next one
            self._moved()
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the next step to deliver: ``len(self)`` after the last one."""
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a saved place: the next iteration delivers exactly what was left, be it nothing.

        Raises:
            InputError: the place doesn't exist, for a file of another data set or batch size, say.
        """
        epoch, step = state["epoch"], state["step"]
        if not 0 <= step <= len(self):
            raise InputError(
                f"the saved state is at step {step}, but an epoch has {len(self)} steps: "
                "resume with the same data and batch size"
            )
        self.set_epoch(epoch)
        self._step, self._resumed = step, True
        self._moved()
