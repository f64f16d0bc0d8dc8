"""Arrays in an .npz archive. Those that are stored as they are can be mapped, as an .npy file is."""

import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...files import reason
from ..npy import check_images
from ..source import Images
from .arrays import Array, halved, paired
from .pick import pick

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: the lengths of its name and of its extra field
_REMEDY = "save the images as numpy.savez(FILE, images=ARRAY), or x_train=ARRAY, x_test=ARRAY"


class _Member(NamedTuple):
    """An array in an archive; ``start``: bytes of its header."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    start: int


def read_npz(path: Path) -> tuple[Images, Images]:
    """Training and test images of an .npz file: the arrays that :func:`fastvae.data.formats.pick.pick` finds.

    One array is split: every tenth image is for testing. Arrays that are compressed are read into memory, of any size.

    Raises:
        InputError: the file cannot be read, is damaged, or has no arrays of images that could be told from others.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                info.filename.removesuffix(".npy"): _member(archive, info)
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
            arrays = [
                Array(f"{path}:{name}", _array(path, archive, members[name], f"{path}:{name}"))
                for name in pick(str(path), members, _REMEDY)
            ]
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: can't be read ({reason(error)}): give the path of an .npz file") from error
    except Exception as error:  # damage ends in BadZipFile, zlib.error, ValueError, SyntaxError, EOFError, ...
        raise InputError(f"{path}: is no usable .npz file ({reason(error)}): {_REMEDY}") from error
    return paired(*arrays) if len(arrays) == 2 else halved(*arrays)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return _Member(info, *read(file), file.tell())


def _array(path: Path, archive: zipfile.ZipFile, member: _Member, label: str) -> NDArray[Any]:
    check_images(label, member.shape, member.dtype)  # refuses objects, which only pickle could read
    size = member.start + math.prod(member.shape) * member.dtype.itemsize
    if size != member.info.file_size:  # so that no header makes us allocate more than the file could hold
        raise InputError(
            f"{label}: its header announces {member.shape} {member.dtype}, {size} bytes with it, but the archive has "
            f"{member.info.file_size}: save or download it again"
        )
    if member.info.compress_type != zipfile.ZIP_STORED or member.info.flag_bits & 1:
        with archive.open(member.info) as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array
    with path.open("rb") as raw:
        offset = _data(raw, member.info) + member.start
    return np.memmap(path, member.dtype, "r", offset, member.shape, "F" if member.is_fortran else "C")


def _data(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where a member's data begin."""
    file.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return int(info.header_offset + _LOCAL_HEADER.size + name + extra)
