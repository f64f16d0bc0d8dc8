"""Limits that no file of a stranger may pass: it is a regular file, of bounded size, and unpacks to a bounded size."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastvae.utils.errors import InputError
from fastvae.utils.files import descriptor_of, reason
from fastvae.utils.machine import check_fits

PICTURE_LIMIT = 256 << 20  # bytes of one picture as its file has it
_UNPACKED_LIMIT = 256 << 20  # bytes that anything may unpack to
_EXPANSION = 200  # times its own size that a larger file may unpack to; dSprites, the emptiest real one, has 115
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30}


def read_picture(path: bytes | str) -> bytes:
    """Read a picture's file. Raises OSError where it cannot be read, is not a regular file, or is huge."""
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
    """Raise OSError for a picture of more bytes than any real one has."""
    if size > PICTURE_LIMIT:
        raise OSError(errno.EFBIG, f"has {size:,} bytes, more than the {PICTURE_LIMIT:,} of a picture")


@contextmanager
def as_input_error(line: Callable[[str], str]) -> Iterator[None]:
    """Turn whatever a library raises within into one :class:`InputError`: a stranger's file may make it raise anything.

    Args:
        line: makes the whole message from the error's own words.
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
        label: the file, for people. packed, unpacked: its bytes before and after.

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
    if unpacked > _UNPACKED_LIMIT:  # a smaller size fits any machine, and every picture comes here
        check_fits(unpacked, f"{label}: unpacked it")


def _unpacked_limit() -> int:
    given = os.environ.get("FASTVAE_MAX_UNPACKED", "")
    if not given:
        return _UNPACKED_LIMIT
    found = re.fullmatch(r"([0-9]{1,18})([KMG]?)", given)
    if found is None:
        raise InputError(f"FASTVAE_MAX_UNPACKED is {given!r}, not a number of bytes: write 4G, say")
    return int(found[1]) << _UNITS[found[2]]
