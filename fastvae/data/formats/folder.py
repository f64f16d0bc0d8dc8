"""Pictures in a folder and the folders in it."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fastvae.data.sources.source import EncodedPictures
from fastvae.data.sources.split import TESTING, Subset, choose_splits, split_of, split_pictures
from fastvae.data.sources.unpacking_limits import read_picture
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason

from .file_names import IDX, SUFFIXES, Counting, NameList, OutsideFiles, is_picture, shown, warn


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

    def relative(self, index: int) -> bytes:
        """Return the path relative to the root."""
        return self._names[index]

    def _path(self, index: int) -> bytes:
        return os.path.join(self._root, self._names[index])


def read_folder(path: Path) -> tuple[EncodedPictures, EncodedPictures]:
    """Find training and test pictures in a folder: .jpg, .jpeg, .png and .webp, in the order of their paths' bytes.

    The splits are folders by the names of :func:`.split_of`, in any depth: one for training and the first for testing;
    other pictures beside them are left out, and one line of the log says how many. Without such folders, every tenth
    picture is for testing. Links are followed, but each folder is read once, and one line of the log names files
    outside of the folder. Hidden files are left out.

    Raises:
        InputError: a folder cannot be read or holds no pictures, there is one picture only, or there is a folder for
            testing and none for training.
    """
    outside = OutsideFiles(os.fsencode(path))
    files = _files(path, outside)
    outside.tell(str(path))
    empty = _empty_split(path, files)
    if empty is not None:
        raise InputError(f"{empty}: holds no picture, nor do the folders in it: fill it, or take it out")
    return split_by_folders(files, (files.relative(index) for index in range(len(files))), str(path))


def _empty_split(path: Path, files: FilePictures) -> Path | None:
    """Return a folder for testing, beside one for training, that holds no pictures."""
    held = {files.relative(index).partition(b"/")[0] for index in range(len(files))}
    if not any(split_of(os.fsdecode(name)) == 0 for name in held):
        return None
    with os.scandir(os.fsencode(path)) as entries:
        folders = [entry.name for entry in entries if entry.is_dir() and split_of(os.fsdecode(entry.name))]
    return next((path / os.fsdecode(name) for name in sorted(folders) if name not in held), None)


def split_by_folders(
    pictures: EncodedPictures, names: Iterable[bytes], label: str
) -> tuple[EncodedPictures, EncodedPictures]:
    """Split pictures by the folders in their names, or by tenths where these are those of no splits.

    The outermost folder with a split's name decides. One line of the log says how many pictures are in no split, or in
    another one for testing, and so left out.
    """
    ranks = np.fromiter((_rank(name) for name in names), dtype=np.int8, count=len(pictures))
    if len(ranks) and (ranks > 0).all():
        first, *others = (TESTING[int(rank) - 1] for rank in np.unique(ranks))
        raise InputError(
            f"{label}: all of its pictures are in {' and '.join([f'a folder named {first}', *others])}, none in one "
            f"named train: add that one, or give the folder {first} itself to train on it"
        )
    test = choose_splits((None if rank < 0 else int(rank) for rank in np.unique(ranks)), label, "a folder")
    if test is None:
        return split_pictures(pictures, label)
    train_index, test_index = (np.flatnonzero(ranks == rank) for rank in (0, test))
    left_out = len(ranks) - len(train_index) - len(test_index)
    if left_out:
        warn(
            f"{label}: {left_out:,} of its pictures are left out, which are neither in train nor in {TESTING[test - 1]}"
        )
    return Subset(pictures, train_index), Subset(pictures, test_index)


def _rank(name: bytes) -> int:
    """Return the rank of :func:`.split_of` of the outermost folder that has one, else -1."""
    found = (split_of(os.fsdecode(part)) for part in name.split(b"/")[:-1])
    return next((rank for rank in found if rank is not None), -1)


def _files(root: Path, outside: OutsideFiles) -> FilePictures:
    with Counting(f"files in {root}") as counting:
        names = NameList(_pictures(os.fsencode(root), counting, outside))
    if len(names) == 0:
        if any(IDX in name for name in os.listdir(root)):
            raise InputError(
                f"{root}: holds IDX files, as MNIST's, and no picture: use --data mnist (fashion-mnist, kmnist) and "
                "name this folder with --data-dir"
            )
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
