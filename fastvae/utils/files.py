"""Opening, reading and writing of files. All of fastvae goes through here, since a folder may come from a stranger.

Only regular files are read, so that a pipe or a device can neither hang a run nor fill its memory. A write goes to a
new file, which is then renamed over the old one, and never follows a link.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

_JSON_LIMIT = 64 << 20  # bytes; no config or index comes near it
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
}
Name = str | bytes | os.PathLike[str]


def reason(error: BaseException) -> str:
    """Return the message of an error on one line."""
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(words.split())


def descriptor_of(path: Name, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor. A pipe or a device is refused at once, without blocking.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
    except ValueError as error:  # a null character, or half of a surrogate pair
        raise OSError(errno.EINVAL, "is not a name that a file can have") from error
    try:
        _check_kind(os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_regular(path: Name) -> BinaryIO:
    """Open a regular file for buffered reading. Raises OSError as :func:`descriptor_of` does."""
    return os.fdopen(descriptor_of(path), "rb")


def check_regular(path: Name) -> None:
    """Raise OSError unless ``path`` is a readable regular file. For libraries that open files themselves."""
    os.close(descriptor_of(path))


def stored_size(file: int | Name) -> int:
    """Return the bytes that a file (path or descriptor) takes on the disk. Holes, which read as zeros, take none."""
    status = os.stat(file)
    return min(status.st_size, status.st_blocks * 512)


def read_bytes(path: Name, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes. Raises OSError; EFBIG if the file is larger."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"has {size:,} bytes, more than the {limit:,} that it may have")
        return file.read(size)


def read_json(path: Name, limit: int = _JSON_LIMIT) -> Any:
    """Return the JSON in a regular file. Raises OSError if it cannot be read, and ValueError if it is not JSON."""
    return parse_json(read_bytes(path, limit))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from an untrusted source. Raises ValueError if it is not JSON or is nested too deeply.

    Integers beyond 64 bits are refused too: they would raise other errors later, wherever they are first used.
    """
    try:
        return json.loads(text, parse_int=_integer)  # noqa: TID251 -- the one place that may
    except RecursionError:
        raise ValueError("brackets nested too deeply to read") from None


@contextmanager
def atomic_write(path: Path, partial: Path | None = None) -> Iterator[BinaryIO]:
    """Open a new file for writing, and rename it to ``path`` at the end, once all of it is on the disk.

    A crash leaves the old file or the new one, never a part. Anything that already has the name of the partial file is
    removed first, and anything named ``path`` is replaced: a link is never followed. Raises OSError.
    """
    partial = path.with_name(path.name + ".partial") if partial is None else partial
    with suppress(FileNotFoundError):
        partial.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(partial, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync(path.parent)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as :func:`atomic_write` does. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text.encode())


def open_in_place(path: Path, flags: int, mode: str) -> IO[Any]:
    """Open a file of a run or a cache for writing in place; ``flags`` decide whether it is created.

    Raises:
        OSError: it is a link, has a second hard link, or is not a regular file.
    """
    try:
        descriptor = descriptor_of(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a link, which is not followed for writing") from error
        raise
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EMLINK, "has a second name elsewhere, whose content would change with it")
    return os.fdopen(descriptor, mode, errors=None if "b" in mode else "backslashreplace")


def is_plain(path: Path) -> bool:
    """Return True if ``path`` is a regular file with a single name: no symbolic link, and only one hard link."""
    status = os.lstat(path)
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def real_folder(path: Path) -> Path:
    """Make a folder whose parent exists, or accept an existing one. Raises OSError if it is a link to a folder."""
    with suppress(FileExistsError):
        path.mkdir()
    mode = os.lstat(path).st_mode
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, f"is {_KINDS.get(stat.S_IFMT(mode), 'a file')}, not a folder")
    return path


def own_folder(path: Path) -> Path:
    """Make a folder for this user alone (mode 0700), or accept an existing one that nobody else can write to.

    Raises:
        OSError: it cannot be made, belongs to another user, or can be written by others.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = os.stat(path)
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"belongs to user {status.st_uid}, not to you ({os.geteuid()})")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "can be written by others: change that with chmod go-w")
    return path


def sync(path: Path) -> None:
    """Call fsync on a file, or on a folder to make the names in it durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(1 << 63) <= int(digits) < 1 << 63:
        raise ValueError(f"a whole number of {len(digits)} digits, more than 64 bits")
    return int(digits)


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")
