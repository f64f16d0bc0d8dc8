"""The loader for any source of images: torch's DataLoader, whose processes decode, or a thread that reads."""

import logging
import math
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.forkserver import ensure_running
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import Unpack

from fastvae.data.sources.source import Source
from fastvae.utils.errors import InputError
from fastvae.utils.isolation import safe_path
from fastvae.utils.machine import check_fits

from .augment import Augment
from .base import Options, OrderedLoader
from .batch import Batch
from .prefetch import Ahead

_LOG = logging.getLogger("fastvae")


class TorchLoader(OrderedLoader):
    """A :class:`fastvae.data.Loader` over a :class:`Source`, read on the host.

    Args:
        source: the images.
        augment: cuts and flips what is delivered; None delivers it as it is.
        workers: processes that read; 0 is a thread of this one, which is enough for what needs no decoding.
        options: of :class:`OrderedLoader`.

    Raises:
        InputError: a number out of its range, or no images; while it is used, what the source raises, or a process that
            reads is killed.

    waited: seconds in which batches were not there when they were asked for.

    >>> import torch
    >>> from fastvae.data.sources.source import Held
    >>> loader = TorchLoader(Held(torch.arange(5).byte().view(5, 1, 1, 1)), batch_size=2, seed=0, shuffle=False)
    >>> [batch.images.flatten().tolist() for batch in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, source: Source, *, augment: Augment | None = None, workers: int = 0, **options: Unpack[Options]
    ) -> None:
        if workers < 0:
            raise InputError(f"workers must be at least 0, not {workers}")
        super().__init__(len(source), **options)
        check_fits(
            min(self.batch_size, len(source)) * math.prod(source.shape[1:]) * source.dtype.itemsize,
            f"a batch of {self.batch_size:,} images",
            "give a smaller --image-size or --batch-size",
        )
        self.source, self.augment, self.workers = source, augment, workers
        self.waited = 0.0
        self._plan = _Plan()
        self._processes: DataLoader[Any] | None = None
        self._ahead: Ahead | None = None
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
        if self._ahead is not None:
            self._ahead.close()  # of an iteration that was left, but is still held: the processes are the same
        read = self._read if self.workers == 0 else self._from_workers(steps)
        with closing(Ahead(read, steps, self.device)) as ahead:
            self._ahead = ahead
            try:
                yield from ahead
            finally:
                self.waited += ahead.waited
                if self._ahead is ahead:
                    self._ahead = None  # it holds this loader, whose processes are to end with it

    def _read(self, step: int) -> Batch:
        """The batch on the host."""
        return self._batch(step, self.source.read(self.indices(step).tolist()))

    def _batch(self, step: int, images: Tensor) -> Batch:
        share = self.share(step)
        if self.augment is not None:
            images = self.augment(images, self._epoch, self.indices(step))
        return Batch(images, row_offset=share.first, rows=share.rows)

    def _from_workers(self, steps: Sequence[int]) -> Any:
        """What gives the batches of these very steps, in turn, as the processes read them."""
        if self._processes is None:
            # Not a fork, which would take over locks that OpenMP's and other threads may hold.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__, "torchvision.transforms.v2.functional", "PIL.Image"])
            self._processes = DataLoader(
                _Fetching(self.source),
                batch_sampler=self._plan,
                collate_fn=_as_it_is,
                num_workers=self.workers,
                persistent_workers=True,
                multiprocessing_context=context,
                worker_init_fn=_begin_worker,
                generator=torch.Generator(),  # else each epoch would draw from the one of the whole program
            )
        self._plan.batches = [self.indices(step).tolist() for step in steps]
        with safe_path():  # the server that its processes are forked from; they are to have the folder of this one
            ensure_running()
        with self._watched():  # of another epoch, they are asked whether they are there
            read = iter(self._processes)

        def take(step: int) -> Batch:
            with self._watched():
                images, told = next(read)
            for message in told:  # once, though several processes may have met the same picture
                if message not in self._told:
                    self._told.add(message)
                    _LOG.warning(message)
            if isinstance(images, str):
                raise InputError(images)
            return self._batch(step, images)

        return take

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Tell of a process that is no more, and start all anew the next time."""
        try:
            yield
        except (RuntimeError, EOFError, OSError) as error:  # what torch finds
            self._processes = None
            raise _killed() from error


@contextmanager
def killed_readers_told() -> Iterator[None]:
    """Make the :class:`InputError` of a reading process that is killed, wherever the main thread is told of it.

    Torch may raise RuntimeError from its handler of SIGCHLD: in the middle of whatever the program is doing.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise _killed() from error


def _killed() -> InputError:
    return InputError(
        "one of the processes that read images was killed, perhaps for lack of memory: use fewer --workers, or 0 for a "
        "thread of this one"
    )


class _Items(Protocol):
    """What torch calls a map-style data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Items:
    """A map-style data set of torch's as a :class:`Source`.

    Args:
        dataset: its items are images, (C, H, W) uint8 or fp32, all alike, or tuples that begin with one. The same
            index must give the same image.

    Raises:
        InputError: items that are something else, or differ in shape or type from the first; that is found as they are
            read.

    >>> from torch.utils.data import TensorDataset
    >>> items = Items(TensorDataset(torch.zeros(5, 1, 4, 4), torch.arange(5)))
    >>> items.shape, items.dtype, items.read([3, 1]).shape
    ((5, 1, 4, 4), torch.float32, torch.Size([2, 1, 4, 4]))
    """

    def __init__(self, dataset: _Items) -> None:
        self._dataset = dataset
        if len(dataset) < 1:
            raise InputError("a data set needs images, but has 0")
        first = _image(dataset, 0)
        channels, height, width = first.shape
        self.shape, self.dtype = (len(dataset), channels, height, width), first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Sequence[int]) -> Tensor:
        images = torch.empty((len(indices), *self.shape[1:]), dtype=self.dtype)
        for row, index in enumerate(indices):
            image = _image(self._dataset, int(index))
            if image.shape != images.shape[1:] or image.dtype != self.dtype:
                raise InputError(
                    f"item {index} is {tuple(image.shape)} {image.dtype}, but item 0 {self.shape[1:]} {self.dtype}: "
                    "make them alike"
                )
            images[row] = image
        return images


def _image(dataset: _Items, index: int) -> Tensor:
    item = dataset[index]
    image = item[0] if isinstance(item, (tuple, list)) and item else item
    if not isinstance(image, Tensor):
        raise InputError(f"item {index} is of type {type(image).__name__}, not a tensor (C, H, W): convert it")
    if image.ndim != 3 or image.dtype not in (torch.uint8, torch.float32):
        raise InputError(
            f"item {index} is {tuple(image.shape)} {image.dtype}, but must be (C, H, W) uint8 or float32: convert it"
        )
    return image


class _Plan:
    """The indices of the batches that are asked for next: what DataLoader calls a batch sampler."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Fetching(Dataset[Any]):
    """A source as DataLoader reads it: many at a time. What is wrong with a picture is handed over, not raised or told
    there, where it would come out as a page of traceback, or past the program's log.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Tensor:
        return self._source.read([index])[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor | str, list[str]]:
        images: Tensor | str
        try:
            images = self._source.read(indices)
        except InputError as error:
            images = str(error)
        return images, _Kept.take()


def _as_it_is(batch: Any) -> Any:
    return batch


class _Kept(logging.Handler):
    """What a process logs, kept until it is handed over."""

    messages: list[str] = []  # noqa: RUF012 -- of the process

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    @classmethod
    def take(cls) -> list[str]:
        taken = cls.messages[:]
        cls.messages.clear()
        return taken


def _begin_worker(_: int) -> None:
    _LOG.addHandler(_Kept())
    _LOG.propagate = False
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
