"""Pictures in a folder and the folders in it."""

import os
from collections.abc import Iterator
from pathlib import Path

from fastvae.data.sources.source import EncodedPictures
from fastvae.data.sources.split import split_pictures
from fastvae.data.sources.unpacking_limits import read_picture
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason

from .file_names import SUFFIXES, Counting, NameList, OutsideFiles, is_picture, shown

TESTS = ("test", "val", "valid")  # names of the split for testing; the first that exists is taken


class FilePictures:
    """Pictures in files, as :class:`.EncodedPictures`.

    Args:
        root: a folder.
        names: paths of files, relative to it.
    """

    def __init__(self, root: Path, names: NameList) -> None:
        self._root = os.fsencode(root)
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def encoded(self, index: int) -> bytes:
        return read_picture(self._path(index))

    def name(self, index: int) -> str:
        return shown(self._path(index))

    def file(self, index: int) -> bytes:
        return self._path(index)

    def _path(self, index: int) -> bytes:
        return os.path.join(self._root, self._names[index])


def read_folder(path: Path) -> tuple[EncodedPictures, EncodedPictures]:
    """Find training and test pictures in a folder: .jpg, .jpeg, .png and .webp, in the order of their paths' bytes.

    The splits are the folders ``train`` and one of ``test``, ``val`` and ``valid``, if these exist; else every tenth
    picture is for testing. Links are followed, but each folder is read once, and one line of the log names files
    outside of the folder. Hidden files are left out.

    Raises:
        InputError: a folder cannot be read or holds no pictures, or there is one picture only.
    """
    outside = OutsideFiles(os.fsencode(path))
    test = next((test for test in TESTS if os.path.isdir(path / "train") and os.path.isdir(path / test)), None)
    roots = [path] if test is None else [path / "train", path / test]
    files = [_files(root, outside) for root in roots]
    outside.tell(str(path))
    return (files[0], files[1]) if len(files) == 2 else split_pictures(files[0], str(path))


def _files(root: Path, outside: OutsideFiles) -> FilePictures:
    with Counting(f"files in {root}") as counting:
        names = NameList(_pictures(os.fsencode(root), counting, outside))
    if len(names) == 0:
        raise InputError(
            f"{root}: holds no picture, nor do the folders in it: give a folder with {', '.join(SUFFIXES)} files, "
            "or with .tar archives alone"
        )
    return FilePictures(root, names)


def _pictures(root: bytes, counting: Counting, outside: OutsideFiles) -> Iterator[bytes]:
    """Yield the paths relative to the root, in the order of their bytes.

    Sorting each folder's names gives that order if the names of folders end in a slash.
    """
    seen = set()  # links may lead in a circle
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


def _name(entry: os.DirEntry[bytes], outside: OutsideFiles) -> bytes | None:
    """Return the name of a picture, or of a folder with a slash; None for anything else."""
    if entry.name.startswith(b"."):
        return None
    try:
        if entry.is_dir():
            return entry.name + b"/"
        is_file = entry.is_file()
    except OSError:  # a link to itself
        is_file = False
    is_link = entry.is_symlink()
    # A broken link counts: reading it names the missing picture, which would else be left out in silence.
    if not is_picture(entry.name) or not (is_file or is_link):
        return None
    outside.see(entry.path, is_link)
    return entry.name
