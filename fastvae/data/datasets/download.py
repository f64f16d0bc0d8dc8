"""Downloads of published data sets, into fastvae's own cache folder."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from fastvae.utils.errors import InputError
from fastvae.utils.files import own_folder, reason
from fastvae.utils.machine import cache_folder

_SILENCE = 30.0  # seconds without an answer that end a download; urllib alone would wait for minutes


def download_folder(name: str) -> Path:
    """Return the folder that data sets are downloaded to and read from, made if need be.

    It must be the user's own, as torchvision unpickles some of the files in it.

    Raises:
        InputError: it cannot be made, or somebody else could write to it.
    """
    try:
        return own_folder(cache_folder())
    except OSError as error:
        raise InputError(
            f"{name}: {cache_folder()} cannot take downloads ({reason(error)}): fix that, or name a folder that holds "
            "the files (--data-dir or FASTVAE_DATA)"
        ) from error


def download(name: str, folder: Path, fetch: Callable[[Path], object]) -> None:
    """Have ``fetch`` fill an empty folder, then move its unpacked files into ``folder`` one by one.

    Each file appears whole or not at all, so a broken download leaves nothing, and processes may download at once.
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
            f"{name}: the download into {folder} failed ({reason(error)}): check the network, or name a folder that "
            "holds the files (--data-dir or FASTVAE_DATA); a new run can also use --data digits, which needs none"
        ) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """A context in which a connection that is silent for so many seconds ends in an error."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
