"""IDX, the format of MNIST and its kin: a magic number, big-endian sizes, then the elements."""

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from fastvae.data.sources.unpacking_limits import check_unpacked
from fastvae.utils.errors import InputError
from fastvae.utils.files import open_regular, reason, stored_size
from fastvae.utils.machine import check_fits

_ELEMENTS = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_HEADER = 16  # bytes: 0, 0, element type, dimensions; then N, H, W as uint32
_CHUNK = 1 << 20  # bytes per read, since a gzip stream copies each read once
_EXPANSION = 1032  # bytes that one byte of deflate can stand for, at most


def read_images(path: Path) -> Tensor:
    """Read the images of an IDX file, gzipped if its name ends in .gz: (N, 1, H, W) uint8.

    Raises:
        InputError: the file is missing, unreadable, truncated, not gzip, not IDX, not uint8, empty or of another
            size than its header says.
    """
    packed = path.suffix == ".gz"
    try:
        with open_regular(path) as file:
            if packed and file.read(2) != b"\x1f\x8b":
                raise InputError(
                    f"{path}: not a gzip file: download it again, or drop .gz from its name if it is unpacked"
                )
            file.seek(0)
            held = stored_size(file.fileno()) if packed else os.fstat(file.fileno()).st_size
            # A GzipFile is a BinaryIO in all but its declaration.
            return _read(path, cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file, held, packed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged or truncated gzip file ({reason(error)}): download it again") from error
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({reason(error)}): it must be a readable IDX file of images"
        ) from error


def _read(path: Path, stream: BinaryIO, held: int, packed: bool) -> Tensor:
    count, height, width = _sizes(path, stream.read(_HEADER))
    size = count * height * width
    if size == 0:
        raise InputError(f"{path}: holds no pixels ({count} images of {height} x {width}): give a file with images")
    announced = f"{path}: its header announces {count} images of {height} x {width}, {size} bytes, but"
    if size > held * (_EXPANSION if packed else 1):  # so that no header makes us allocate more than the file could hold
        raise InputError(f"{announced} fewer follow: download it again")
    if packed:
        check_unpacked(str(path), held, size)
    check_fits(size, f"{path}: its images")
    images = torch.empty((count, 1, height, width), dtype=torch.uint8)
    target = images.numpy().reshape(-1).data
    done = 0
    while got := cast(int, stream.readinto(target[done : done + _CHUNK])):  # type: ignore[attr-defined]
        done += got
    if done < size:
        raise InputError(f"{announced} {done} follow: download it again")
    if stream.read(1):  # at the end of a gzip stream this also checks its CRC
        raise InputError(f"{announced} more follow: download it again")
    return images


def _sizes(path: Path, header: bytes) -> tuple[int, int, int]:
    if header[:2] != b"\0\0" or len(header) < 4:
        remedy = "add .gz to its name, for it is gzipped" if header[:2] == b"\x1f\x8b" else "give an IDX file of images"
        raise InputError(f"{path}: its magic number is 0x{header[:4].hex()}, not 0x00000803: {remedy}")
    code = header[2]
    dimensions = header[3]
    if code != 0x08:
        found = _ELEMENTS.get(code, "unknown")
        raise InputError(
            f"{path}: its elements are {found} (0x{code:02x}), not uint8 (0x08): give an IDX file of uint8"
        )
    if dimensions != 3:
        kind = ", as labels have," if dimensions == 1 else ""
        raise InputError(
            f"{path}: has {dimensions} dimension(s){kind} not 3 (N, H, W): give the IDX file of the images"
        )
    if len(header) < _HEADER:
        raise InputError(f"{path}: ends inside its header, after {len(header)} of {_HEADER} bytes: download it again")
    count, height, width = struct.unpack(">3I", header[4:])
    return count, height, width
