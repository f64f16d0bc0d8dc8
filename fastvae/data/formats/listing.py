"""Pictures by a list of their paths."""

import os
from pathlib import Path

from ...errors import InputError
from ...files import reason
from ..source import Encoded
from .folder import Files
from .names import Counting, Names, shown
from .split import halved


def read_list(path: Path) -> tuple[Encoded, Encoded]:
    """Training and test pictures of a text file with one path a line, in that order; every tenth is for testing.

    Paths are relative to the file's folder. Lines that are blank or begin with # are left out.

    Raises:
        InputError: the file cannot be read, lists files that are not there, or lists fewer than two.
    """
    try:
        lines = [line.strip() for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()]
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({reason(error)}): give the path of a list of pictures, one path a line"
        ) from error
    names = [line for line in lines if line and not line.startswith(b"#")]
    folder = os.fsencode(path.parent)
    with Counting(f"files of {path}") as counting:
        missing = [name for name in counting(names) if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of its {len(names)} lines name no file, the first is {shown(missing[0])!r}: "
            f"list paths relative to {path.parent}, one a line"
        )
    return halved(Files(path.parent, Names(names)), str(path))
