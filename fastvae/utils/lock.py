"""A lock on a run's folder, so that only one run at a time writes to it."""

import fcntl
import os
import socket
from pathlib import Path
from typing import IO, Any

from .errors import InputError
from .files import open_in_place

FILE = "lock"
_LONGEST = 500  # characters that are read of the holder's description


class Lock:
    """An exclusive ``flock`` on a file in a folder, held until it is released or the process ends in any way.

    The file stays, except where a start is refused and leaves nothing behind. It names the process that holds the lock,
    or held it last. On a file system without locks, this does nothing, and ``is_held`` is False.

    Raises:
        InputError: another process holds the lock; the message names its id and host.
        OSError: the file cannot be made, or is a link or not a regular file.
    """

    def __init__(self, folder: Path) -> None:
        self.is_held = False
        while True:
            self._file = open_in_place(folder / FILE, os.O_RDWR | os.O_CREAT, "r+")
            try:
                is_ours = take_lock(self._file)
            except OSError:  # ENOLCK or ENOTSUP, on network file systems
                return
            if not is_ours or _is_still(folder / FILE, self._file):
                break
            self._file.close()  # of a start that was abandoned meanwhile, and removed it
        self.is_held = is_ours
        if not is_ours:
            holder = self._file.read(_LONGEST).strip() or "another process"
            self._file.close()
            raise InputError(f"{folder} is in use by {holder}: wait for its end, or choose another --out")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def release(self) -> None:
        """Release the lock. Further calls do nothing."""
        self._file.close()


def _is_still(path: Path, file: IO[Any]) -> bool:
    """Return whether an open file still has its name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def take_lock(file: IO[Any], *, wait: bool = False) -> bool:
    """Take an exclusive ``flock`` on an open file, held until the file is closed or the process ends in any way.

    Returns False if another process holds it, unless ``wait``. Raises OSError on a file system without locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
