"""One run a folder, at a time."""

import fcntl
import os
import socket
from pathlib import Path
from typing import IO, Any

from .errors import InputError
from .files import open_in_place

FILE = "lock"
_LONGEST = 500  # characters of what a holder says of itself


class Lock:
    """An exclusive ``flock`` on a file in a folder, until it is released or the process ends, however that happens.

    The file stays, as removing it would race with the next run. It names the process that holds the lock, or held it.
    Where the file system has no locks there is none.

    Raises:
        InputError: another process has it; its id and host are named.
        OSError: the file cannot be made, or is a link or no regular file.
    """

    def __init__(self, folder: Path) -> None:
        self._file = open_in_place(folder / FILE, os.O_RDWR | os.O_CREAT, "r+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self._file.read(_LONGEST).strip() or "another process"
            self._file.close()
            raise InputError(f"{folder} is in use by {holder}: wait for its end, or choose another --out") from error
        except OSError:  # ENOLCK, ENOTSUP: of network file systems
            return
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let others have it; a second time does nothing."""
        self._file.close()


def take_lock(file: IO[Any], *, wait: bool = False) -> bool:
    """Take an exclusive ``flock`` on an open file, held until the file is closed or the process ends in any way.

    Returns False if another process holds it, unless ``wait``. Raises OSError on a file system without locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
