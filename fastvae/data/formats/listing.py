"""Pictures by a list of their paths."""

import os
from io import BytesIO
from pathlib import Path

from fastvae.data.sources.source import EncodedPictures
from fastvae.data.sources.split import split_pictures
from fastvae.utils.errors import InputError
from fastvae.utils.files import read_bytes, reason

from .file_names import Counting, NameList, OutsideFiles, shown
from .folder import FilePictures

_LIMIT = 1 << 30  # bytes of a list


def read_list(path: Path) -> tuple[EncodedPictures, EncodedPictures]:
    """Find the pictures that a text file lists, one path a line, in that order; every tenth is for testing.

    Paths are relative to the file's folder; one line of the log names those outside of it. Blank lines and lines
    that begin with # are left out.

    Raises:
        InputError: the file cannot be read, lists files that are not there, or lists fewer than two.
    """
    try:
        content = read_bytes(path, _LIMIT).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({reason(error)}): give the path of a list of pictures, one path a line"
        ) from error
    names = NameList(line for line in map(bytes.strip, BytesIO(content)) if line and not line.startswith(b"#"))
    root = os.fsencode(path.parent)
    outside = OutsideFiles(root)
    missing = 0
    first = b""
    with Counting(f"files of {path}") as counting:
        for index in counting(range(len(names))):
            file = os.path.join(root, names[index])
            if os.path.isfile(file):
                outside.enter(os.path.dirname(file))
                outside.see(file, os.path.islink(file))
            else:
                first = first or names[index]
                missing += 1
    if missing:
        raise InputError(
            f"{path}: {missing} of its {len(names)} lines name no file, the first is {shown(first)!r}: "
            f"list paths relative to {path.parent}, one a line"
        )
    outside.tell(str(path))
    return split_pictures(FilePictures(path.parent, names), str(path))
