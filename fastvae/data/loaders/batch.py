"""What the engine asks of a loader. Loaders differ in how they fetch a batch, never in which samples it holds."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from torch import Tensor


class Batch(NamedTuple):
    """One process's share of one global batch.

    images: (b, C, H, W) on the device, uint8 (read as x/255) or fp32, in memory as they come (channels_last from
        pictures that were decoded); b may be 0 in a small last batch.
    row_offset: the place of the first of these rows in the global batch, as :class:`fastvae.Noise` takes it.
    rows: the size of the global batch, over all processes.
    """

    images: Tensor
    row_offset: int
    rows: int


class Loader(Protocol):
    """Batches that are a pure function of (seed, epoch, step), and a place that can be saved and found again.

    Rank r of W holds rows ``[r * rows // W, (r + 1) * rows // W)`` of each global batch.

    count: images in an epoch. batch_size: rows of a global batch.
    """

    count: int
    batch_size: int

    def fetch(self, step: int) -> Batch:
        """The batch of one step of the current epoch; the place in the epoch stays."""

    def first(self, count: int) -> Tensor:
        """The first images in their own order, on the device, (count, C, H, W): to look at."""

    def __len__(self) -> int:
        """Steps in an epoch; the last batch may be smaller."""

    def set_epoch(self, epoch: int) -> None:
        """Go to the first step of an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """Deliver what is left of the epoch. After its end, the same epoch again, unless the epoch was set."""

    def state_dict(self) -> dict[str, int]:
        """``{"epoch": ..., "step": ...}``: the next step to deliver, which is ``len(self)`` after the last one."""

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go there: the next iteration delivers exactly what was left, be it nothing."""
