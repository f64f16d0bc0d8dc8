"""The processes in which torch's DataLoader reads a source: their side of it, and the error if one is killed."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastvae.data.sources.source import Source
from fastvae.utils.errors import InputError

_LOG = logging.getLogger("fastvae")


@contextmanager
def killed_readers_told() -> Iterator[None]:
    """Turn torch's error about a killed reading process into :class:`InputError`, wherever the main thread gets it.

    torch raises RuntimeError from its SIGCHLD handler, in the middle of whatever the program is doing.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise reader_was_killed() from error


def reader_was_killed() -> InputError:
    """Return the error for a reading process that was killed."""
    return InputError(
        "one of the processes that read images was killed, perhaps for lack of memory: use fewer --workers, or 0 for a "
        "thread of this one"
    )


class BatchPlan:
    """The indices of the next batches: a batch sampler, as DataLoader calls it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class ReadingDataset(Dataset[Any]):
    """A source as DataLoader reads it, a batch at a time, with the warnings about it.

    The error of a bad picture is handed over as a string, and so are warnings: raised in the process, an error comes
    out as a page of traceback, and a warning bypasses the program's log.
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
        return images, _KeptMessages.take()


def unchanged(batch: Any) -> Any:
    """Return a batch as it is: the source has collated it."""
    return batch


class _KeptMessages(logging.Handler):
    """A log handler that keeps a process's messages until they are handed over."""

    messages: list[str] = []  # noqa: RUF012 -- one list for the whole process

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    @classmethod
    def take(cls) -> list[str]:
        taken = cls.messages[:]
        cls.messages.clear()
        return taken


def begin_reader(_: int) -> None:
    """Set up a reading process: one thread, and messages that are handed over."""
    _LOG.addHandler(_KeptMessages())
    _LOG.propagate = False
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
