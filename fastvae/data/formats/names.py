"""Many names in little memory, which of them are pictures, and a count of them for people."""

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
_ENDINGS = tuple(suffix.encode() for suffix in SUFFIXES)
_PATIENCE = 1.0  # seconds without a word
_PART = 1000  # items between two looks at the clock
_LOG = logging.getLogger("fastvae")

T = TypeVar("T")


def is_picture(path: bytes) -> bool:
    """Whether a name is a picture's. Hidden files are none: on a Mac, ``._x.jpg`` says how a window shows x.jpg.

    >>> is_picture(b"a/b.JPG"), is_picture(b"a/._b.jpg"), is_picture(b"a/b.txt")
    (True, False, False)
    """
    return path.lower().endswith(_ENDINGS) and not path.rpartition(b"/")[2].startswith(b".")


def shown(name: bytes) -> str:
    """A file's name for people: on one line, and of characters that can be printed, whatever its bytes are."""
    return printable(name.decode("utf-8", "backslashreplace"))


def warn(message: str) -> None:
    """Log one line; of several processes the first does."""
    if is_first():
        _LOG.warning("%s", printable(message))


def is_first() -> bool:
    """Whether this process is the one of a run that talks."""
    return os.environ.get("RANK", "0") == "0"


class Names:
    """A sequence of names, as one block of bytes and where each of them ends: a million take 8 MB and their letters.

    >>> names = Names([b"a.jpg", b"b/c.png"])
    >>> len(names), names[1]
    (2, b'b/c.png')
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        block, ends = bytearray(), array("q", [0])
        for name in names:
            block += name
            ends.append(len(block))
        self._block, self._ends = bytes(block), np.array(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        return self._block[self._ends[index] : self._ends[index + 1]]


class Outside:
    """Which files of a data set lie outside of its folder, by links or by their paths: they are read, but said first.

    Args:
        root: the folder.
    """

    def __init__(self, root: bytes) -> None:
        self._root = os.path.join(os.path.realpath(root), b"")
        self._folders: dict[bytes, bool] = {}
        self._is_outside = False  # the folder that was entered
        self.count, self._first = 0, b""

    def enter(self, folder: bytes) -> None:
        """Go on with the files of a folder."""
        self._is_outside = self._is_out(folder)

    def see(self, path: bytes, is_link: bool) -> None:
        """Look at a file of the folder that was entered: only of links the system is asked where they lead."""
        if self._leads_out(path) if is_link else self._is_outside:
            self.count += 1
            self._first = self._first or os.path.realpath(path)

    def tell(self, label: str) -> None:
        """Log one line, if there are such files."""
        if self.count == 1:
            warn(f"{label}: 1 of its files lies outside of it, {shown(self._first)}")
        elif self.count:
            warn(f"{label}: {self.count:,} of its files lie outside of it, {shown(self._first)} for one")

    def _leads_out(self, link: bytes) -> bool:
        """By the folder that a link names, which many have in common: a path's own links take 50 us to follow."""
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
    """Counts what is found, on stderr, where that takes longer than a second; of several processes the first tells.

    >>> with Counting("files") as counting:
    ...     list(counting("abc"))
    ['a', 'b', 'c']
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_shown = is_first()
        self._count, self._begun = 0, time.monotonic()
        self._stack = ExitStack()
        self._status: Status | None = None

    def __enter__(self) -> "Counting":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, items: Iterable[T]) -> Iterator[T]:
        """The items, counted together with those of other calls."""
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
