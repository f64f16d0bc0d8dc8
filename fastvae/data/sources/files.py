"""Where data lies: the folder that a user names, or a cache that downloads fill; and what no file of it may do."""

import errno
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from fastvae.utils.errors import InputError
from fastvae.utils.files import descriptor_of, own_folder, reason
from fastvae.utils.machine import cache_folder, check_fits

PICTURE_LIMIT = 256 << 20  # bytes of one picture as its file has it
_UNPACKED_LIMIT = 256 << 20  # bytes that anything may unpack to
_EXPANSION = 200  # times its own size that a larger file may unpack to; dSprites, the emptiest real one, has 115
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30}
_SILENCE = 30.0  # seconds without an answer that end a download; urllib alone would wait for minutes


def user_folder(data_dir: Path | None) -> Path | None:
    """The folder given as an argument or by FASTVAE_DATA, checked; None where neither is."""
    named = data_dir if data_dir is not None else os.environ.get("FASTVAE_DATA") or None
    if named is None:
        return None
    folder = path_of(str(named))
    remedy = "give the folder that holds the data (--data-dir or FASTVAE_DATA)"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: {'is a file, not a folder' if os.path.exists(folder) else 'no such folder'}: {remedy}"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{folder}: this folder may not be read: change its permissions, or {remedy}")
    return folder


def path_of(name: str) -> Path:
    """The path that a name means, with ~ for a home. Raises InputError for what no file can be called."""
    try:
        os.fsencode(name)
        if "\0" not in name:
            return Path(os.path.expanduser(name))
    except UnicodeEncodeError:
        pass
    raise InputError(f"{name!r} is no name that a file can have: give the path of the images")


def own_cache(name: str) -> Path:
    """A folder in :func:`cache_folder`, made if need be. Raises OSError where somebody else could write to it."""
    return own_folder(own_folder(cache_folder()) / name)


def download_folder(name: str) -> Path:
    """Where a data set is downloaded to and read from, made if need be: torchvision unpickles some of what lies there.

    Raises:
        InputError: it cannot be made, or somebody else could write to it.
    """
    try:
        return own_folder(cache_folder())
    except OSError as error:
        raise InputError(
            f"{name}: {cache_folder()} cannot take downloads ({reason(error)}): mend that, or name a folder that holds "
            "the files (--data-dir or FASTVAE_DATA)"
        ) from error


def find(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of the names that is a file in the folder, else the first that is there at all."""
    there = [folder / name for name in names if os.path.exists(folder / name)]
    return next((path for path in there if path.is_file()), there[0] if there else None)


def download(name: str, folder: Path, fetch: Callable[[Path], object]) -> None:
    """Have ``fetch`` fill an empty folder, then move its unpacked files into ``folder`` one by one.

    Each file appears whole or not at all, so a broken download leaves nothing and processes may race.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".download-") as fresh, _patience(_SILENCE):
            fetch(Path(fresh))
            for file in sorted(Path(fresh).rglob("*")):
                if file.is_file() and file.suffix != ".gz":
                    target = folder / file.relative_to(fresh)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
    except (OSError, RuntimeError, HTTPException) as error:
        raise InputError(
            f"{name}: the download into {folder} failed ({reason(error)}): "
            "check the network, or name a folder that holds the files (--data-dir or FASTVAE_DATA)"
        ) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def picture(path: bytes | str) -> bytes:
    """The content of a picture's file. Raises OSError where it cannot be read, is no regular file or is huge."""
    descriptor = descriptor_of(path)
    try:
        size = os.fstat(descriptor).st_size
        check_picture(size)
        content = os.read(descriptor, size)
        while len(content) < size and (more := os.read(descriptor, size - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)


def check_picture(size: int) -> None:
    """Raise OSError for a picture that is larger than any is."""
    if size > PICTURE_LIMIT:
        raise OSError(errno.EFBIG, f"has {size:,} bytes, more than the {PICTURE_LIMIT:,} of a picture")


@contextmanager
def told(line: Callable[[str], str]) -> Iterator[None]:
    """Make one :class:`InputError` of whatever a library raises within: of a stranger's file that may be anything.

    Args:
        line: the whole message, given the error's own words.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(line(reason(error))) from error


def check_unpacked(label: str, packed: int, unpacked: int) -> None:
    """Refuse a decompression bomb before it is unpacked.

    Args:
        label: the file, for people. packed, unpacked: bytes of it, before and after.

    Raises:
        InputError: it would unpack to over 256 MiB, or FASTVAE_MAX_UNPACKED, and to more than 200 times its own size;
            or to more than this machine has.
    """
    limit = _unpacked_limit()
    if unpacked > max(limit, _EXPANSION * packed):
        raise InputError(
            f"{label}: unpacks from {packed:,} bytes to {unpacked:,}, more than {_EXPANSION} times as many and than "
            f"the {limit:,} that it may: set FASTVAE_MAX_UNPACKED={(unpacked >> 30) + 1}G if you trust it"
        )
    if unpacked > _UNPACKED_LIMIT:  # for less the machine is not asked: each picture comes here
        check_fits(unpacked, f"{label}: unpacked it")


def _unpacked_limit() -> int:
    given = os.environ.get("FASTVAE_MAX_UNPACKED", "")
    if not given:
        return _UNPACKED_LIMIT
    found = re.fullmatch(r"([0-9]{1,18})([KMG]?)", given)
    if found is None:
        raise InputError(f"FASTVAE_MAX_UNPACKED is {given!r}, not a number of bytes: write 4G, say")
    return int(found[1]) << _UNITS[found[2]]
