"""The loader for any source: torch's DataLoader, whose processes decode, or a thread that reads."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import Unpack

from fastvae.data.sources.source import Source
from fastvae.utils.errors import InputError
from fastvae.utils.machine import check_fits

from .augment import Augment
from .base import Loader, LoaderOptions
from .batch import Batch
from .prefetch import Prefetcher
from .reader_processes import (
    BatchPlan,
    ReadingDataset,
    begin_reader,
    fault_of_readers,
    start_server,
    unchanged,
)

_READER = 32 << 20  # bytes that a reading process takes for itself, at least
_LOG = logging.getLogger("fastvae")


class TorchLoader(Loader):
    """A :class:`.Loader` over a :class:`Source`, read on the host.

    Args:
        source: the images.
        augment: cuts and flips what is delivered; None delivers it as it is.
        workers: processes that read; 0 reads in a thread of this one, enough for images that need no decoding.
        options: those of :class:`.Loader`.

    Raises:
        InputError: a number out of its range, or no images; in use, whatever the source raises, or a reading process
            was killed.

    waited: seconds that the caller waited for batches.

    >>> import torch
    >>> from fastvae.data import TensorSource
    >>> loader = TorchLoader(TensorSource(torch.arange(5).byte().view(5, 1, 1, 1)), batch_size=2, seed=0, shuffle=False)
    >>> [batch.images.flatten().tolist() for batch in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, source: Source, *, augment: Augment | None = None, workers: int = 0, **options: Unpack[LoaderOptions]
    ) -> None:
        if workers < 0:
            raise InputError(f"workers must be at least 0, not {workers}")
        super().__init__(len(source), **options)
        check_fits(
            min(self.batch_size, len(source)) * math.prod(source.shape[1:]) * source.dtype.itemsize,
            f"a batch of {self.batch_size:,} images",
            "give a smaller --image-size or --batch-size",
        )
        check_fits(workers * _READER, f"--workers {workers:,}: a process", "use one for each core")
        self.source = source
        self.augment = augment
        self.workers = workers
        self.waited = 0.0
        self._plan = BatchPlan()
        self._processes: DataLoader[Any] | None = None
        self._prefetcher: Prefetcher | None = None
        self._told: set[str] = set()

    def fetch(self, step: int) -> Batch:
        batch = self._read(step)
        return batch._replace(images=batch.images.to(self.device))

    def first(self, count: int) -> Tensor:
        images = self.source.read(range(min(count, self.count))).to(self.device)
        return images if self.augment is None else self.augment.in_middle(images)

    def _deliver(self, steps: Sequence[int]) -> Iterator[Batch]:
        if not steps:
            return
        if self._prefetcher is not None:
            self._prefetcher.close()  # an iteration that was left may still be held, and uses the same processes
        read = self._read if self.workers == 0 else self._from_workers(steps)
        with closing(Prefetcher(read, steps, self.device)) as prefetcher:
            self._prefetcher = prefetcher
            try:
                yield from prefetcher
            finally:
                self.waited += prefetcher.waited
                if self._prefetcher is prefetcher:
                    self._prefetcher = None  # it holds this loader, whose processes should end with the loader

    def _read(self, step: int) -> Batch:
        """Read a batch on the host."""
        return self._batch(step, self.source.read(self.indices(step).tolist()))

    def _batch(self, step: int, images: Tensor) -> Batch:
        share = self.share(step)
        if self.augment is not None:
            images = self.augment(images, self._epoch, self.indices(step))
        return Batch(images, row_offset=share.first, rows=share.rows)

    def _from_workers(self, steps: Sequence[int]) -> Callable[[int], Batch]:
        """Return a function that gives the batches of these steps, in this order, as the processes read them."""
        try:
            context = start_server([__name__, "torchvision.transforms.v2.functional", "PIL.Image"])
        except OSError as error:
            raise fault_of_readers(error) from error
        if self._processes is None:
            self._processes = DataLoader(
                ReadingDataset(self.source),
                batch_sampler=self._plan,
                collate_fn=unchanged,
                num_workers=self.workers,
                persistent_workers=True,
                multiprocessing_context=context,
                worker_init_fn=begin_reader,
                generator=torch.Generator(),  # else each epoch would draw from the program's own generator
            )
        self._plan.batches = [self.indices(step).tolist() for step in steps]
        with self._watched():  # processes of an earlier epoch may be dead
            read = iter(self._processes)

        def take(step: int) -> Batch:
            with self._watched():
                images, warnings = next(read)
            for message in warnings:  # once, though several processes may have met the same bad picture
                if message not in self._told:
                    self._told.add(message)
                    _LOG.warning(message)
            if isinstance(images, str):
                raise InputError(images)
            images = torch.as_tensor(images)  # an array, where shared memory is full
            return self._batch(step, images)

        return take

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Raise InputError if a process has died, and start all of them again the next time."""
        try:
            yield
        except (RuntimeError, EOFError, OSError) as error:  # torch raises any of these
            self._processes = None
            raise fault_of_readers(error) from error
