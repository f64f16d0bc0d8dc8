"""The folder of a data set's files, as a user names it."""

import os
from collections.abc import Iterable
from pathlib import Path

from fastvae.utils.errors import InputError


def user_folder(data_dir: Path | None) -> Path | None:
    """Return the folder given as an argument or by FASTVAE_DATA, checked; None where neither is given."""
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
    """Return the path that a name means, with ~ for a home. Raises InputError for a name that no file can have."""
    try:
        os.fsencode(name)
        if "\0" not in name:
            return Path(os.path.expanduser(name))
    except UnicodeEncodeError:
        pass
    raise InputError(f"{name!r} is not a name that a file can have: give the path of the images")


def find(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first of the names that is a file in the folder, else the first that exists at all."""
    there = [folder / name for name in names if os.path.exists(folder / name)]
    return next((path for path in there if path.is_file()), there[0] if there else None)
