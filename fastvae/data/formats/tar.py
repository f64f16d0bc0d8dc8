"""Pictures in tar archives, as WebDataset writes them: found once, then each is read from its place in the archive."""

import os
import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from fastvae.data.sources.source import EncodedPictures
from fastvae.data.sources.split import choose_splits, split_of_words
from fastvae.data.sources.unpacking_limits import as_input_error, check_picture
from fastvae.utils.errors import InputError
from fastvae.utils.files import descriptor_of, open_regular

from .file_names import SUFFIXES, Counting, NameList, is_picture, shown, warn
from .folder import split_by_folders

_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
_MOST_RANGES = 8  # in one pattern
_BLOCK = 512  # bytes; archives consist of blocks
_PART = 1 << 20  # bytes of padding that are read together
# Bytes of the headers before one member, extended ones included: a name has 4 KiB at most. The time that Python's
# tarfile takes grows with the square of a header of digits (CVE-2024-6232): half a second for this limit.
_HEADERS = 32 << 10


class TarPictures:
    """The pictures in tar archives, as :class:`.EncodedPictures`.

    An archive is opened again for every picture, so that any number of threads and processes can read any number of
    archives.

    Args:
        paths: the archives.

    Raises:
        InputError: an archive is missing, compressed, truncated or damaged, or there are no pictures in them.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        where = array("q")

        def names() -> Iterator[bytes]:
            with Counting("pictures in archives") as counting:
                for number, path in enumerate(paths):
                    for name, offset, size in counting(_members(path)):
                        where.extend((number, offset, size))
                        yield name

        self._names = NameList(names())
        self._where = np.array(where).reshape(-1, 3)
        if len(self) == 0:
            more = f" and {len(paths) - 1} more archives hold" if len(paths) > 1 else ": holds"
            raise InputError(f"{paths[0]}{more} no picture: give archives with {', '.join(SUFFIXES)} files")

    def __len__(self) -> int:
        return len(self._names)

    def encoded(self, index: int) -> bytes:
        number, offset, size = self._where[index].tolist()
        check_picture(size)
        file = descriptor_of(self._paths[number])
        try:
            return os.pread(file, size, offset)
        finally:
            os.close(file)

    def name(self, index: int) -> str:
        return f"{self._paths[self._where[index, 0]]}/{shown(self._names[index])}"

    def member(self, index: int) -> bytes:
        """Return the name in its archive."""
        return self._names[index]

    def file(self, index: int) -> bytes:
        return os.fsencode(self._paths[self._where[index, 0]])


def read_tars(paths: Sequence[Path], label: str) -> tuple[EncodedPictures, EncodedPictures]:
    """Find training and test pictures in archives, in the order of the archives and of their members.

    Archives with a split's name in theirs (:func:`.split_of_words`) are those splits, and others beside them are left
    out, which one line of the log says; else the folders in the archives are, as :func:`.split_by_folders` has it; else
    every tenth picture is for testing.

    Raises:
        InputError: an archive cannot be read, there are too few pictures, or an archive for testing and none for
            training.
    """
    ranks = [split_of_words(path.name) for path in paths]
    test = choose_splits(ranks, label, "an archive")
    if test is None:
        pictures = TarPictures(paths)
        return split_by_folders(pictures, (pictures.member(index) for index in range(len(pictures))), label)
    train_paths, test_paths = (
        [path for path, rank in zip(paths, ranks, strict=True) if rank == wanted] for wanted in (0, test)
    )
    left_out = [path.name for path, rank in zip(paths, ranks, strict=True) if rank not in (0, test)]
    if left_out:
        warn(f"{label}: {len(left_out)} of its archives are left out, in neither split, {left_out[0]} for one")
    return TarPictures(train_paths), TarPictures(test_paths)


def numbered(pattern: str) -> Iterator[Path]:
    """Yield the files of a pattern with a range in braces.

    Raises:
        InputError: the pattern has no such range, or a file is missing.

    >>> list(numbered("{3..1}.tar"))
    Traceback (most recent call last):
    fastvae.utils.errors.InputError: {3..1}.tar: the range {3..1} counts down: write {1..3}
    """
    found = _RANGE.search(pattern)
    if found is None:
        raise InputError(f"{pattern}: has no range of numbers in its braces: write {{000..123}}")
    if len(_RANGE.findall(pattern)) > _MOST_RANGES:
        raise InputError(f"{pattern[:80]} ...: has more than {_MOST_RANGES} ranges in braces: give fewer")
    first, last = found.groups()
    if int(first) > int(last):
        raise InputError(f"{pattern}: the range {found[0]} counts down: write {{{last}..{first}}}")
    width = len(first) if first.startswith("0") else 0
    for number in range(int(first), int(last) + 1):
        name = f"{pattern[: found.start()]}{number:0{width}}{pattern[found.end() :]}"
        if _RANGE.search(name):
            yield from numbered(name)
        elif os.path.exists(name):
            yield Path(name)
        else:
            raise InputError(f"{name}: no such file, but {found[0]} names it: give the range of the archives there are")


def _members(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the place and the size of each picture in an archive."""
    place = 0
    remedy = "copy or download it again"

    def line(why: str) -> str:
        return f"{path}: is not a complete tar archive ({why}, at byte {place:,}): {remedy}"

    # tarfile raises what its parts do: OverflowError, ValueError, RecursionError, ... of a header that claims anything.
    with as_input_error(line), open_regular(path) as file:
        total = os.fstat(file.fileno()).st_size
        magic = file.read(8)
        for begin, kind in _PACKED.items():
            if magic.startswith(begin):
                raise InputError(
                    f"{path}: is compressed with {kind}, so no picture can be read without all before it: "
                    "unpack it to a plain .tar, which is hardly larger"
                )
        file.seek(0)
        start: int | None = 0
        while start is not None:  # an archive after another, which ``cat`` has joined
            file.seek(start)
            headers = _Headers(file)
            with tarfile.open(fileobj=cast(BinaryIO, headers), mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # it would keep a million of them
                    headers.left = _HEADERS
                    if archive.offset <= place:  # a negative size would go back, for ever
                        raise tarfile.ReadError(f"a member of {member.size:,} bytes")
                    place = archive.offset
                    name = os.fsencode(member.name)
                    if is_picture(name) and member.isreg() and not member.issparse():
                        if not 0 <= member.size <= total - member.offset_data:
                            raise tarfile.ReadError(f"a member of {member.size:,} bytes, unexpected end of data")
                        yield name, member.offset_data, member.size
                end = archive.offset
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):  # the mark of the end; tarfile accepts any end
                raise InputError(f"{path}: is truncated or damaged at byte {end}: {remedy}")
            start = _next_archive(file)
            place = max(place, start or 0)


def _next_archive(file: BinaryIO) -> int | None:
    """Return where the padding of zeros after an archive ends, if not with the file: there another one begins."""
    while block := file.read(_PART):
        rest = block.lstrip(b"\0")
        if rest:
            return (file.tell() - len(rest)) // _BLOCK * _BLOCK
    return None


class _Headers:
    """An archive as tarfile reads it: headers alone, and no more than ``left`` bytes of them for one member."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.left = _HEADERS
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"headers of one member with more than {_HEADERS:,} bytes")
        self.left -= size
        return self._file.read(size)
