"""Pictures by a list of their paths."""

import codecs
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from fastvae.data.sources.source import EncodedPictures
from fastvae.data.sources.split import split_pictures
from fastvae.utils.errors import InputError
from fastvae.utils.files import read_bytes, reason

from .file_names import Counting, NameList, OutsideFiles, shown
from .folder import FilePictures

_LIMIT = 1 << 30  # bytes of a list
_MARKS = {  # byte order marks, longer ones first: that of UTF-16 begins UTF-32's
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def read_list(path: Path) -> tuple[EncodedPictures, EncodedPictures]:
    """Find the pictures that a text file lists, one path a line, in that order; every tenth is for testing.

    Paths are relative to the file's folder; one line of the log names those outside of it. Blank lines and lines
    that begin with # are left out. A line is taken as it is where it names a file; else without the blanks around it,
    and then without the quotes around that. The list may be in UTF-8 or, with a byte order mark, in UTF-16 (as
    PowerShell's ``>`` writes it) or UTF-32, with line ends of any system.

    Raises:
        InputError: the file cannot be read, lists files that are not there, or lists fewer than two.
    """
    try:
        content = _as_utf8(path, read_bytes(path, _LIMIT))
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({reason(error)}): give the path of a list of pictures, one path a line"
        ) from error
    root = os.fsencode(path.parent)
    outside = OutsideFiles(root)
    count = missing = 0
    first = b""  # of the missing ones

    def names() -> Iterator[bytes]:
        nonlocal count, missing, first
        with Counting(f"files of {path}") as counting:
            for line in counting(BytesIO(content)):
                bare = line.strip()
                if not bare or bare.startswith(b"#"):
                    continue
                count += 1
                found = _file(root, line.rstrip(b"\r\n"))
                if found is None:
                    missing += 1
                    first = first or bare
                    continue
                file = os.path.join(root, found)
                outside.enter(os.path.dirname(file))
                outside.see(file, os.path.islink(file))
                yield found

    files = NameList(names())
    if missing:
        remedy = f"list paths relative to {path.parent}, one a line"
        if b"\0" in first:
            remedy = "it may be UTF-16 without a byte order mark, so save it in UTF-8"
        raise InputError(
            f"{path}: {missing} of its {count} lines name no file, the first is {shown(first)!r}: {remedy}"
        )
    outside.tell(str(path))
    return split_pictures(FilePictures(path.parent, files), str(path))


def _as_utf8(path: Path, content: bytes) -> bytes:
    """Return a list without its byte order mark, in UTF-8 or in its own bytes, with lines that end in LF."""
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            if encoding == "utf-8":  # names may have bytes that are not UTF-8
                content = content.removeprefix(mark)
                break
            try:
                content = content.decode(encoding).encode()
            except UnicodeError as error:
                raise InputError(
                    f"{path}: begins as {encoding.upper()}, but is not ({reason(error)}): save it in UTF-8"
                ) from error
            break
    return content if b"\n" in content else content.replace(b"\r", b"\n")


def _file(root: bytes, line: bytes) -> bytes | None:
    """Return the file that a line names; None where there is none."""
    bare = line.strip()
    quoted = bare[1:-1] if bare[:1] == bare[-1:] and bare[:1] in (b'"', b"'") else bare
    for name in (line, bare, quoted):
        if name and b"\0" not in name and os.path.isfile(os.path.join(root, name)):
            return name
    return None
