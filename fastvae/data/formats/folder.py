"""Pictures in a folder and the folders in it."""

import os
from collections.abc import Iterator
from pathlib import Path

from fastvae.data.sources.files import picture
from fastvae.data.sources.source import Encoded
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason

from .names import SUFFIXES, Counting, Names, Outside, is_picture, shown
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
        return picture(self._path(index))

    def name(self, index: int) -> str:
        return shown(self._path(index))

    def file(self, index: int) -> bytes:
        return self._path(index)

    def _path(self, index: int) -> bytes:
        return os.path.join(self._root, self._names[index])


def read_folder(path: Path) -> tuple[Encoded, Encoded]:
    """Training and test pictures of a folder: .jpg, .jpeg, .png and .webp, by the order of their paths' bytes.

    The folders ``train`` and one of ``test``, ``val`` and ``valid`` are the splits, where they are there; else every
    tenth picture is for testing. Links are followed, but each folder is read once, and one line of the log tells of
    files outside of the folder. Hidden files are left out.

    Raises:
        InputError: a folder cannot be read or holds no pictures, or there is one picture only.
    """
    outside = Outside(os.fsencode(path))
    test = next((test for test in TESTS if os.path.isdir(path / "train") and os.path.isdir(path / test)), None)
    roots = [path] if test is None else [path / "train", path / test]
    files = [_files(root, outside) for root in roots]
    outside.tell(str(path))
    return (files[0], files[1]) if len(files) == 2 else halved(files[0], str(path))


def _files(root: Path, outside: Outside) -> Files:
    with Counting(f"files in {root}") as counting:
        names = Names(_pictures(os.fsencode(root), counting, outside))
    if len(names) == 0:
        raise InputError(
            f"{root}: holds no picture, nor do the folders in it: give a folder with {', '.join(SUFFIXES)} files, "
            "or with .tar archives alone"
        )
    return Files(root, names)


def _pictures(root: bytes, counting: Counting, outside: Outside) -> Iterator[bytes]:
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
            outside.enter(folder)
            with os.scandir(folder) as entries:
                found = [path + name for entry in counting(entries) if (name := _name(entry, outside))]
        except OSError as error:
            raise InputError(
                f"{shown(folder)}: can't be read ({reason(error)}): make it a readable folder, or take it out"
            ) from error
        todo += sorted(found, reverse=True)


def _name(entry: os.DirEntry[bytes], outside: Outside) -> bytes | None:
    """The name of a picture; of a folder, with a slash; None for all else."""
    if entry.name.startswith(b"."):
        return None
    try:
        if entry.is_dir():
            return entry.name + b"/"
        is_file = entry.is_file()
    except OSError:  # a link to itself
        is_file = False
    is_link = entry.is_symlink()
    # A broken link counts, so that its picture is missed by its name when it is read, not left out in silence.
    if not is_picture(entry.name) or not (is_file or is_link):
        return None
    outside.see(entry.path, is_link)
    return entry.name
