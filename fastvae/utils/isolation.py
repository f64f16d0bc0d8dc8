"""Isolation of the processes that Python starts by itself: from modules in the current folder, and from signals."""

import atexit
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from tempfile import mkdtemp

from fastvae._command import STOPS

_VARIABLE = "PYTHONSAFEPATH"


@contextmanager
def safe_path(*, by_variable: bool = sys.version_info >= (3, 11)) -> Iterator[None]:
    """Keep Python processes that start inside this context from importing modules of the current folder.

    multiprocessing starts its servers by ``python -c``, which searches the current folder first: a stranger's
    ``numpy.py`` there would run. Python 3.11 has a variable against that; for 3.10, the context changes to an empty
    folder.

    Args:
        by_variable: set PYTHONSAFEPATH; otherwise change the current folder.
    """
    if by_variable:
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = before
        return
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chdir(_empty())
        yield
    finally:
        os.chdir(descriptor)
        os.close(descriptor)


@contextmanager
def stops_blocked() -> Iterator[None]:
    """Block the signals of ``STOPS`` in this thread; processes started inside the context have them blocked for good.

    A terminal, a cluster or systemd sends a signal to a whole group of processes at once. Helper processes must not
    mind it: the run that they work for ends first, and then ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@cache
def _empty() -> str:
    """Return an empty folder that exists until this process ends: a child started there may look it up later."""
    folder = mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
