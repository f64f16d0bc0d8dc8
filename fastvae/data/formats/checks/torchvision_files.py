"""Checks of files that torchvision's classes unpack without comparing a checksum."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fastvae.data.sources.unpacking_limits import as_input_error, check_unpacked
from fastvae.utils.errors import InputError
from fastvae.utils.files import open_regular, stored_size

from .hdf5 import check_alone

_MATLAB_HEADER = 128  # bytes
_MATLAB_PACKED = 15  # the type of an element that is packed
_PART = 1 << 20  # bytes


def check_packed(kind: str, make: Any, folder: Path) -> None:
    """Refuse the files of a class of torchvision that are not what they should be, or unpack to far too much.

    Args:
        kind: the class's name. make: the class. folder: the folder of its files.

    Raises:
        InputError: one of them is not a regular file, is damaged, not the published one, or a decompression bomb.
    """
    if kind == "Cityscapes" and not (folder / "leftImg8bit" / "test").is_dir():  # the class would unpack archives there
        raise InputError(f"{folder}: holds no folder leftImg8bit/test: unpack Cityscapes' archives there yourself")
    if kind == "USPS":
        check_sums(folder, make.split_list.values())
    for pattern, check in _CHECKS.get(kind, {}).items():
        for path in sorted(folder.glob(pattern)):
            with as_input_error(lambda why, path=path: f"{path}: can't be read ({why}): put it there again"):  # type: ignore[misc]
                check(path)


def check_sums(folder: Path, files: Any) -> None:
    """Compare the MD5 sums of files, given as (address, name, sum), that the class itself compares in downloads alone.

    Raises:
        InputError: one is missing, or is not the published one.
    """
    from torchvision.datasets.utils import check_integrity  # noqa: PLC0415 -- slow to import

    for address, name, md5 in files:
        if not check_integrity(str(folder / name), md5):
            raise InputError(
                f"{folder / name}: is missing, or not the published one by its MD5 sum: put {address} there"
            )


def _check_zip(path: Path) -> None:
    """Check a file of torch.save's: a zip archive, whose members may be packed though torch packs none."""
    with open_regular(path) as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
            check_unpacked(str(path), stored_size(file.fileno()), sum(info.file_size for info in members))


def _check_matlab(path: Path) -> None:
    """Check a .mat file of version 5: elements, some of them packed by zlib."""
    with open_regular(path) as file:
        header = file.read(_MATLAB_HEADER)
        order = ">" if header[-2:] == b"MI" else "<"
        packed = unpacked = 0
        while len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            end = file.tell() + size
            if kind == _MATLAB_PACKED:
                packed += size
                for length in _unpacked(file, size):
                    unpacked += length
                    check_unpacked(str(path), packed, unpacked)
            file.seek(end)


def _unpacked(file: BinaryIO, size: int) -> Iterator[int]:
    """Yield how many bytes come out of the next ``size``, a part at a time."""
    stream = zlib.decompressobj()
    while size > 0 and (part := file.read(min(_PART, size))):
        size -= len(part)
        yield len(stream.decompress(part, _PART))
        while stream.unconsumed_tail:
            yield len(stream.decompress(stream.unconsumed_tail, _PART))


_CHECKS: dict[str, dict[str, Callable[[Path], None]]] = {
    "ImageNet": {"meta.bin": _check_zip},
    **{kind: {f"{kind}/processed/*.pt": _check_zip} for kind in ("MNIST", "FashionMNIST", "KMNIST", "QMNIST")},
    "PCAM": {"pcam/*.h5": check_alone},
    "StanfordCars": {"stanford_cars/*.mat": _check_matlab, "stanford_cars/devkit/*.mat": _check_matlab},
}
