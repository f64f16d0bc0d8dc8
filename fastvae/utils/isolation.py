"""Processes that Python starts by itself, kept from importing what lies in the current folder."""

import atexit
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from tempfile import mkdtemp

_VARIABLE = "PYTHONSAFEPATH"


@contextmanager
def safe_path(*, by_variable: bool = sys.version_info >= (3, 11)) -> Iterator[None]:
    """Within, Python processes that start do not look for modules in the current folder, which may be a stranger's.

    ``python -c``, by which multiprocessing starts its servers, has it first in its search path: a ``numpy.py`` there
    would run. Where Python has no variable against that (3.10), the current folder is an empty one meanwhile.

    Args:
        by_variable: set PYTHONSAFEPATH; else change the folder.
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


@cache
def _empty() -> str:
    """An empty folder of this process' own, until it ends: what starts there may ask for its current folder later."""
    folder = mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
