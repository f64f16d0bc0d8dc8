"""Pictures in a folder and the folders in it."""

import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import InputError
from ...files import reason
from ..source import Encoded
from .names import SUFFIXES, Counting, Names, is_picture, shown
from .split import halved

TESTS = ("test", "val", "valid")  # names of the split for testing; the first that is there


class Files:
    """Files as an :class:`Encoded`.

    Args:
        root: a folder.
        names: paths of files, relative to it.
    """

    def __init__(self, root: Path, names: Names) -> None:
        self._root, self._names = os.fsencode(root), names

    def __len__(self) -> int:
        return len(self._names)

    def encoded(self, index: int) -> bytes:
        with open(self._path(index), "rb", buffering=0) as file:
            return file.read()

    def name(self, index: int) -> str:
        return shown(self._path(index))

    def _path(self, index: int) -> bytes:
        return os.path.join(self._root, self._names[index])


def read_folder(path: Path) -> tuple[Encoded, Encoded]:
    """Training and test pictures of a folder: .jpg, .jpeg, .png and .webp, by the order of their paths' bytes.

    The folders ``train`` and one of ``test``, ``val`` and ``valid`` are the splits, where they are there; else every
    tenth picture is for testing. Links are followed, but each folder is read once. Hidden files are left out.

    Raises:
        InputError: a folder cannot be read or holds no pictures, or there is one picture only.
    """
    for test in TESTS:
        if os.path.isdir(path / "train") and os.path.isdir(path / test):
            return _files(path / "train"), _files(path / test)
    return halved(_files(path), str(path))


def _files(root: Path) -> Files:
    with Counting(f"files in {root}") as counting:
        names = Names(_pictures(os.fsencode(root), counting))
    if len(names) == 0:
        raise InputError(
            f"{root}: holds no picture, nor do the folders in it: give a folder with {', '.join(SUFFIXES)} files, "
            "or with .tar archives alone"
        )
    return Files(root, names)


def _pictures(root: bytes, counting: Counting) -> Iterator[bytes]:
    """The paths relative to the root, in the order of their bytes: it is that of every folder's names by itself.

    For that a folder's name ends in a slash.
    """
    seen = set()  # links may lead round in a circle
    todo = [b""]
    while todo:
        path = todo.pop()
        if path and not path.endswith(b"/"):
            yield path
            continue
        folder = os.path.join(root, path)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                found = [path + name for entry in counting(entries) if (name := _name(entry))]
        except OSError as error:
            raise InputError(
                f"{shown(folder)}: can't be read ({reason(error)}): make it a readable folder, or take it out"
            ) from error
        todo += sorted(found, reverse=True)


def _name(entry: os.DirEntry[bytes]) -> bytes | None:
    """The name of a picture; of a folder, with a slash; None for all else."""
    if entry.name.startswith(b"."):
        return None
    try:
        if entry.is_dir():
            return entry.name + b"/"
        is_file = entry.is_file()
    except OSError:  # a link to itself
        is_file = False
    # A broken link counts, so that its picture is missed by its name when it is read, not left out in silence.
    return entry.name if is_picture(entry.name) and (is_file or entry.is_symlink()) else None
