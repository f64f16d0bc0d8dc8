"""The loader for data that fits on the device: no workers, no copies, one gather a step."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..errors import InputError
from .loader import Batch
from .order import permutation


class ResidentLoader:
    """A :class:`fastvae.data.Loader` over images that live on the device.

    Args:
        images: (N, C, H, W), uint8 or fp32, N >= 1; kept in their type.
        batch_size: rows of the **global** batch, over all processes; the last batch of an epoch may be smaller.
        seed: of the shuffling; the same for every process.
        device: where images, order and batches live.
        shuffle: False delivers the images in their own order, in every epoch.
        rank, world_size: this process's place among all of them.

    Raises:
        InputError: a number out of its range, or no images.

    No step waits for the device. A ``break`` leaves the loader where it is: the next iteration goes on from there.

    >>> import torch
    >>> loader = ResidentLoader(torch.arange(5).byte().view(5, 1, 1, 1), batch_size=2, seed=0, shuffle=False)
    >>> [batch.images.flatten().tolist() for batch in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        images: Tensor,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if images.ndim != 4 or len(images) == 0:
            raise InputError(f"images must be (N, C, H, W) with N >= 1, but have shape {tuple(images.shape)}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        if not 0 <= rank < world_size:
            raise InputError(f"rank must be in [0, world_size), but is {rank} of {world_size}")
        self.images = images.to(device).contiguous()
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self._resumed = False
        # Where the next batch begins in the order, for `follow`: an address that a CUDA graph may keep, as the order's.
        self.place = torch.zeros((), dtype=torch.int64, device=self.images.device)
        self._order = torch.empty(len(images), dtype=torch.int64, device=self.images.device)
        self.set_epoch(0)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return (len(self.images) + self.batch_size - 1) // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Go to the first step of an epoch, 0 <= epoch < 2**32."""
        count, device = len(self.images), self.images.device
        # Drawn even where it isn't used, so a bad seed or epoch is refused at once.
        order = permutation(count, self.seed, epoch, device)
        self._order.copy_(order if self.shuffle else torch.arange(count, device=device))
        self._epoch, self._step = epoch, 0
        self.place.zero_()

    def fetch(self, step: int) -> Batch:
        """The batch of one step of the current epoch, 0 <= step < len(self); the place in the epoch stays."""
        if not 0 <= step < len(self):
            raise InputError(f"step must be in [0, {len(self)}), not {step}")
        start = step * self.batch_size
        rows = min(self.batch_size, len(self.images) - start)
        first, end = self._share(rows)
        index = self._order[start + first : start + end]
        return Batch(self.images.index_select(0, index), row_offset=first, rows=rows)

    def _share(self, rows: int) -> tuple[int, int]:
        """The rows of a global batch that are this process's: from, to."""
        return self.rank * rows // self.world_size, (self.rank + 1) * rows // self.world_size

    def full_steps_left(self) -> int:
        """How many batches of full size are left in the epoch."""
        return max(0, len(self.images) // self.batch_size - self._step)

    def follow(self) -> Batch:
        """The full batch at ``place``, which moves on: on the device alone, so that a CUDA graph can replay it.

        The place in the epoch that the host knows stays: :meth:`skip` moves it.
        """
        first, end = self._share(self.batch_size)
        index = self._order.index_select(0, self.place + torch.arange(first, end, device=self.place.device))
        self.place += self.batch_size
        return Batch(self.images.index_select(0, index), row_offset=first, rows=self.batch_size)

    def skip(self, steps: int) -> None:
        """Move on by steps that were taken by :meth:`follow`."""
        self._step += steps

    def __iter__(self) -> Iterator[Batch]:
        """Deliver what is left of the epoch; after its end, the same epoch again, unless the epoch was set."""
        if self._step == len(self) and not self._resumed:
            self._step = 0
            self.place.zero_()
        self._resumed = False
        while self._step < len(self):
            self._step += 1  # before the yield: a state saved while this batch is in use names the next one
            self.place.fill_(self._step * self.batch_size)
            yield self.fetch(self._step - 1)

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
        self.place.fill_(step * self.batch_size)
