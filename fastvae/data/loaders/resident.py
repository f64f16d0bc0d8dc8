"""The loader for images that fit on the device: no workers, no copies, one gather a step."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from fastvae.data.sources.source import Source
from fastvae.data.sources.tensor import in_memory
from fastvae.utils.errors import InputError

from .augment import Augment
from .base import Loader, LoaderOptions
from .batch import Batch


class ResidentLoader(Loader):
    """A :class:`.Loader` over images that live on the device, as its order does.

    Args:
        images: (N, C, H, W), uint8 or fp32, N >= 1; kept in their type, and in channels_last if they are. A source is
            read into memory.
        augment: crops and mirrors the images of each batch; None delivers them as they are.
        options: those of :class:`.Loader`.

    Raises:
        InputError: a number out of its range, or no images.

    No step waits for the device.

    >>> import torch
    >>> loader = ResidentLoader(torch.arange(5).byte().view(5, 1, 1, 1), batch_size=2, seed=0, shuffle=False)
    >>> [batch.images.flatten().tolist() for batch in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, images: Tensor | Source, *, augment: Augment | None = None, **options: Unpack[LoaderOptions]
    ) -> None:
        images = in_memory(images)
        if images.ndim != 4 or len(images) == 0:
            raise InputError(f"images must be (N, C, H, W) with N >= 1, but have shape {tuple(images.shape)}")
        device = options.get("device", "cpu")
        images = images.to(device)
        self._is_channels_last = images.is_contiguous(memory_format=torch.channels_last) and images.shape[1] > 1
        self.images = images if self._is_channels_last else images.contiguous()
        self._rows = self.images.permute(0, 2, 3, 1) if self._is_channels_last else self.images  # contiguous
        self.augment = augment
        # Where the next batch begins in the order, for `follow`: CUDA graphs keep its address, and that of the order.
        self.place = torch.zeros((), dtype=torch.int64, device=device)
        super().__init__(len(images), **options)
        first, end = self._part(self.batch_size)  # in a full batch, for `follow`
        self._row_offset = first
        rows = end - first if self.batch_size <= self.count else 0  # of a batch larger than the epoch, none is full
        self._places = first + torch.arange(rows, device=device)

    @property
    def _order_device(self) -> torch.device | str:
        return self.device

    def _moved(self) -> None:
        self.place.fill_(self._step * self.batch_size)

    def fetch(self, step: int) -> Batch:
        share = self.share(step)
        indices = self.indices(step)
        images = self._gather(indices)
        if self.augment is not None:
            images = self.augment(images, self._epoch, indices)
        return Batch(images, row_offset=share.first, rows=share.rows)

    def first(self, count: int) -> Tensor:
        images = self.images[:count].clone()  # a model may work in place
        return images if self.augment is None else self.augment.in_middle(images)

    def _gather(self, indices: Tensor) -> Tensor:
        rows = self._rows.index_select(0, indices)
        return rows.permute(0, 3, 1, 2) if self._is_channels_last else rows

    def full_steps_left(self) -> int:
        """Return how many batches of full size are left in the epoch."""
        return max(0, self.count // self.batch_size - self._step)

    def follow(self) -> Batch:
        """Return the full batch at ``place`` and advance it, on the device alone, so that a CUDA graph can replay it.

        The host's place in the epoch stays: :meth:`skip` moves it. Nothing is cropped or mirrored.
        """
        assert self.augment is None
        index = self._order.index_select(0, self.place + self._places)
        self.place += self.batch_size
        return Batch(self._gather(index), row_offset=self._row_offset, rows=self.batch_size)

    def skip(self, steps: int) -> None:
        """Advance by the steps that :meth:`follow` took."""
        self._step += steps
        self._resumed = True  # if that ended the epoch, the next iteration must not deliver it again
