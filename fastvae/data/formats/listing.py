"""Pictures by a list of their paths."""

import os
from io import BytesIO
from pathlib import Path

from fastvae.data.sources.source import Encoded
from fastvae.utils.errors import InputError
from fastvae.utils.files import read_bytes, reason

from .folder import Files
from .names import Counting, Names, Outside, shown
from .split import halved

_LIMIT = 1 << 30  # bytes of a list


def read_list(path: Path) -> tuple[Encoded, Encoded]:
    """Training and test pictures of a text file with one path a line, in that order; every tenth is for testing.

    Paths are relative to the file's folder; one line of the log tells of those that leave it. Lines that are blank or
    begin with # are left out.

    Raises:
        InputError: the file cannot be read, lists files that are not there, or lists fewer than two.
    """
    try:
        content = read_bytes(path, _LIMIT).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({reason(error)}): give the path of a list of pictures, one path a line"
        ) from error
    names = Names(line for line in map(bytes.strip, BytesIO(content)) if line and not line.startswith(b"#"))
    root = os.fsencode(path.parent)
    outside, missing, first = Outside(root), 0, b""
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
    return halved(Files(path.parent, names), str(path))
