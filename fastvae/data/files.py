"""Where data lies: the folder that a user names, or a cache that downloads fill."""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InputError
from ..files import own_folder, reason

_SILENCE = 30.0  # seconds without an answer that end a download; urllib alone would wait for minutes


def user_folder(data_dir: Path | None) -> Path | None:
    """The folder given as an argument or by FASTVAE_DATA, checked; None where neither is."""
    named = data_dir if data_dir is not None else os.environ.get("FASTVAE_DATA") or None
    if named is None:
        return None
    folder = Path(os.path.expanduser(named))
    remedy = "give the folder that holds the data (--data-dir or FASTVAE_DATA)"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: {'is a file, not a folder' if os.path.exists(folder) else 'no such folder'}: {remedy}"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{folder}: this folder may not be read: change its permissions, or {remedy}")
    return folder


def cache_folder() -> Path:
    """Where downloads go; the XDG specification has a relative path ignored."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "fastvae"


def own_cache(name: str) -> Path:
    """A folder in :func:`cache_folder`, made if need be. Raises OSError where somebody else could write to it."""
    return own_folder(own_folder(cache_folder()) / name)


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
