"""A guard for libraries that open files themselves: a pipe or a device would hang them."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from fastvae.utils.files import check_regular


class _Guard(threading.local):
    is_on = False


_guard = _Guard()


@contextmanager
def only_regular_files() -> Iterator[None]:
    """A context in which Python opens regular files alone, in this thread: others raise OSError.

    It covers ``open`` and ``os.open``, and so Pillow, numpy, scipy and torch; not what a C library opens by itself.
    """
    _install()
    before = _guard.is_on
    _guard.is_on = True
    try:
        yield
    finally:
        _guard.is_on = before


@cache
def _install() -> None:
    """Add the hook once: Python cannot remove one."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _guard.is_on and isinstance(path := arguments[0], (str, bytes)) and os.path.exists(path):
        _guard.is_on = False
        try:
            if not os.path.isdir(path):
                check_regular(path)
        finally:
            _guard.is_on = True
