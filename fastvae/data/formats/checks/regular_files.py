"""Libraries that open files themselves, held to regular ones: a pipe or a device would hang them."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from fastvae.utils.files import check_regular


class _Held(threading.local):
    is_held = False


_held = _Held()


@contextmanager
def regular_alone() -> Iterator[None]:
    """Within, and in this thread, whatever Python opens by its path must be a regular file, else OSError is raised.

    That covers ``open`` and ``os.open``, and so Pillow, numpy, scipy and torch; not what a C library opens by itself.
    """
    _install()
    _held.is_held, before = True, _held.is_held
    try:
        yield
    finally:
        _held.is_held = before


@cache
def _install() -> None:
    """Once, for a hook stays for good."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _held.is_held and isinstance(path := arguments[0], (str, bytes)) and os.path.exists(path):
        _held.is_held = False
        try:
            if not os.path.isdir(path):
                check_regular(path)
        finally:
            _held.is_held = True
