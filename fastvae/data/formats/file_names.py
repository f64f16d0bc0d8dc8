"""Names of files: many in little memory, which are pictures, which lie outside of the folder, and how many they are."""

import logging
import os
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

import numpy as np
from rich.status import Status
from rich.text import Text

from fastvae.utils.terminal import Terminal
from fastvae.utils.text import printable

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
IDX = "-idx3-ubyte"  # in the names of MNIST's files, and of those of its kin
_ENDINGS = tuple(suffix.encode() for suffix in SUFFIXES)
_PATIENCE = 1.0  # seconds before the count is shown
_PART = 1000  # items between two looks at the clock
_LOG = logging.getLogger("fastvae")

T = TypeVar("T")


def is_picture(path: bytes) -> bool:
    """Return whether a name is a picture's. Hidden files are not: on a Mac, ``._x.jpg`` has the icon of x.jpg.

    >>> is_picture(b"a/b.JPG"), is_picture(b"a/._b.jpg"), is_picture(b"a/b.txt")
    (True, False, False)
    """
    return path.lower().endswith(_ENDINGS) and not path.rpartition(b"/")[2].startswith(b".")


def shown(name: bytes) -> str:
    """Return a file's name for people: one line of printable characters, whatever its bytes are."""
    return printable(name.decode("utf-8", "backslashreplace"))


def warn(message: str) -> None:
    """Log one line, in the first of several processes."""
    if is_first():
        _LOG.warning("%s", printable(message))


def is_first() -> bool:
    """Return whether this process is rank 0, the one that logs."""
    return os.environ.get("RANK", "0") == "0"


class NameList:
    """A sequence of names, stored as one block of bytes and where each ends: a million take 8 MB and their letters.

    >>> names = NameList([b"a.jpg", b"b/c.png"])
    >>> len(names), names[1]
    (2, b'b/c.png')
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        block = bytearray()
        ends = array("q", [0])
        for name in names:
            block += name
            ends.append(len(block))
        self._block = bytes(block)
        self._ends = np.array(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        return self._block[self._ends[index] : self._ends[index + 1]]


class OutsideFiles:
    """The files of a data set outside of its folder, by links or by their paths: they are read, after a warning.

    Args:
        root: the folder.
    """

    def __init__(self, root: bytes) -> None:
        self._root = os.path.join(os.path.realpath(root), b"")
        self._folders: dict[bytes, bool] = {}
        self._is_outside = False  # whether the folder that was entered is
        self.count = 0
        self._first = b""

    def enter(self, folder: bytes) -> None:
        """Look at the files of this folder from now on."""
        self._is_outside = self._is_out(folder)

    def see(self, path: bytes, is_link: bool) -> None:
        """Look at a file of the folder that was entered: the system is asked about links alone."""
        if self._leads_out(path) if is_link else self._is_outside:
            self.count += 1
            self._first = self._first or os.path.realpath(path)

    def tell(self, label: str) -> None:
        """Log one line if there are such files."""
        if self.count == 1:
            warn(f"{label}: 1 of its files lies outside of it, {shown(self._first)}")
        elif self.count:
            warn(f"{label}: {self.count:,} of its files lie outside of it, {shown(self._first)} for one")

    def _leads_out(self, link: bytes) -> bool:
        """Judge by the folder that a link names, which many links share: to follow a path's own links takes 50 us."""
        folder, name = os.path.split(os.path.join(os.path.dirname(link), os.readlink(link)))
        if self._is_out(folder):
            return True
        is_another = name in (b"", b".", b"..") or os.path.islink(os.path.join(folder, name))
        return is_another and self._leaves(link)

    def _is_out(self, folder: bytes) -> bool:
        if folder not in self._folders:
            self._folders[folder] = self._leaves(folder)
        return self._folders[folder]

    def _leaves(self, path: bytes) -> bool:
        return not os.path.join(os.path.realpath(path), b"").startswith(self._root)


class Counting:
    """Counts items on stderr, in the first process, if they take longer than a second.

    >>> with Counting("files") as counting:
    ...     list(counting("abc"))
    ['a', 'b', 'c']
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_shown = is_first()
        self._count = 0
        self._begun = time.monotonic()
        self._stack = ExitStack()
        self._status: Status | None = None

    def __enter__(self) -> "Counting":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, counted together with those of other calls."""
        for item in items:
            self._count += 1
            if self._count % _PART == 0 and self._is_shown and time.monotonic() - self._begun > _PATIENCE:
                self._show()
            yield item

    def _show(self) -> None:
        words = Text(printable(f"{self._what}: {self._count:,}"))  # a string would be read as markup
        if self._status is None:
            self._status = self._stack.enter_context(Terminal(stderr=True).status(words))
        self._status.update(words)
