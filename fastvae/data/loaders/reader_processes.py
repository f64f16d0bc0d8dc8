"""The processes in which torch's DataLoader reads a source: their start, their side of it, the errors about them."""

import errno
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastvae.data.sources.source import Source
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason
from fastvae.utils.isolation import safe_path, stops_blocked

_SHARED = "/dev/shm"
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM, errno.ENOENT, errno.ENOSYS}
_TOO_MANY = ("Too many open files", "ancdata")  # in torch's RuntimeErrors, where a message lacks its descriptor
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


def fault_of_readers(error: BaseException) -> InputError:
    """Return the error for reading processes that cannot be started, or heard any more, for the reason in ``error``."""
    is_short = isinstance(error, OSError) and error.errno in _SHORTAGES
    if is_short or any(words in str(error) for words in _TOO_MANY):
        return InputError(
            f"the processes that read images lack something ({reason(error)}): they need open files (ulimit -n) and "
            f"memory in {_SHARED}; or use --workers 0, a thread of this process"
        )
    return reader_was_killed()


def start_server(preload: list[str]) -> Any:
    """Start the server that reading processes are forked from, and return its multiprocessing context.

    A fork of this process would inherit locks that threads of OpenMP and others may hold. The server, and so each
    reading process, searches no current folder and has the signals blocked that would stop the run.

    Raises:
        OSError: it cannot be started.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    with safe_path():
        with stops_blocked():
            resource_tracker.ensure_running()  # by itself: it unblocks what it blocks, and does not think of SIGHUP
        with stops_blocked():
            forkserver.ensure_running()
    return context


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

    def __getitems__(self, indices: list[int]) -> tuple["Tensor | np.ndarray[Any, Any] | str", list[str]]:
        images: Tensor | np.ndarray[Any, Any] | str
        try:
            images = _to_send(self._source.read(indices))
        except InputError as error:
            images = str(error)
        return images, _KeptMessages.take()


def _to_send(images: Tensor) -> "Tensor | np.ndarray[Any, Any]":
    """Move a batch to shared memory, or, where that is full, return it as an array, which goes through a pipe.

    The queue would do the former later, in a thread whose error reaches nobody: the batch would never arrive.
    """
    try:
        shared: Tensor = images.share_memory_()
    except (OSError, RuntimeError):  # torch raises either, by its version and by what is missing
        _LOG.warning(
            f"{_SHARED} has no room for batches: they come from the reading processes through pipes, which is slower; "
            "make it larger (docker run --shm-size=1g), or use fewer --workers or a smaller --batch-size"
        )
        return images.numpy()
    return shared


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
    threading.Thread(target=_end_if_the_parent_says_so, name="fastvae-end", daemon=True).start()
    _LOG.addHandler(_KeptMessages())
    _LOG.propagate = False
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def _end_if_the_parent_says_so() -> None:
    """Exit at a SIGTERM from the process that this one reads for; such a signal from anybody else is dropped."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
