"""Arrays in an .npz archive. Uncompressed ones can be memory-mapped, as an .npy file is."""

import math
import struct
import zipfile
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastvae.data.sources.source import Source
from fastvae.data.sources.unpacking_limits import as_input_error, check_unpacked
from fastvae.utils.errors import InputError
from fastvae.utils.files import open_regular, reason, stored_size

from .arrays import NumpySource, choose_arrays, pair_arrays, split_array
from .file_names import Counting
from .npy import Header, check_images, header

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: the lengths of its name and of its extra field
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 1 << 20  # bytes
_END = 256  # bytes that the records at the end of a directory take, at most
_REMEDY = "save the images as numpy.savez(FILE, images=ARRAY), or x_train=ARRAY, x_test=ARRAY"


class _Member(NamedTuple):
    """An array in an archive."""

    info: zipfile.ZipInfo
    header: Header

    @property
    def shape(self) -> tuple[int, ...]:
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.header.dtype


def read_npz(path: Path) -> tuple[Source, Source]:
    """Read training and test images of an .npz file: the arrays that :func:`.pick` finds.

    If there is one array, every tenth image is for testing. Compressed arrays are read into memory. The checksum of
    each array is verified.

    Raises:
        InputError: the file cannot be read, is damaged, unpacks to far more than its size, or has no array or several
            that could hold images.
    """
    try:
        with (
            open_regular(path) as file,
            # Damage ends in BadZipFile, zlib.error, ValueError, SyntaxError, EOFError, ...
            as_input_error(lambda why: f"{path}: is not a usable .npz file ({why}): {_REMEDY}"),
            zipfile.ZipFile(file) as archive,
        ):
            _check_whole(file, archive)
            members = {
                info.filename.removesuffix(".npy"): _member(path, archive, info)
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
            arrays = [
                NumpySource(f"{path}:{name}", _array(path, file, archive, members[name], f"{path}:{name}"))
                for name in choose_arrays(str(path), members, _REMEDY)
            ]
    except OSError as error:
        raise InputError(f"{path}: can't be read ({reason(error)}): give the path of an .npz file") from error
    return pair_arrays(*arrays) if len(arrays) == 2 else split_array(*arrays)


def _check_whole(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Raise ValueError for an archive with another one before or after it, or two arrays of one name.

    zipfile reads the last archive in a file alone, and finds the last array of a name.
    """
    infos = archive.infolist()
    before = min((info.header_offset for info in infos), default=0)
    if before:
        raise ValueError(f"{before:,} bytes come before its first array, of another archive, say")
    end = archive.start_dir + sum(  # that of the directory: 46 bytes for each member, its name, extra field and comment
        46 + len(info.orig_filename.encode()) + len(info.extra) + len(info.comment) for info in infos
    )
    file.seek(end)
    rest = file.read(_END + len(archive.comment))
    place = rest.find(b"PK\x05\x06")
    if place >= 0:
        file.seek(end + place + 22 + len(archive.comment))
        while part := file.read(_CHUNK):
            if part.strip(b"\0"):
                raise ValueError("more bytes follow its directory, of another archive, say")
    names = [info.filename for info in infos]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise ValueError(f"it has two arrays named {twice}")


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    if info.compress_type not in _METHODS:  # the readers of other methods unpack any amount at once
        raise InputError(f"{path}:{info.filename}: is packed by method {info.compress_type}, not numpy's: {_REMEDY}")
    with archive.open(info) as file:
        return _Member(info, header(file))


def _array(path: Path, file: BinaryIO, archive: zipfile.ZipFile, member: _Member, label: str) -> NDArray[Any]:
    shape, is_fortran, dtype, start = member.header
    info = member.info
    check_images(label, shape, dtype)  # refuses objects, which only pickle could read
    size = start + math.prod(shape) * dtype.itemsize
    if size != info.file_size:  # so that no header makes us allocate more than the file could hold
        raise InputError(
            f"{label}: its header announces {shape} {dtype}, {size} bytes with it, but the archive has "
            f"{info.file_size}: save or download it again"
        )
    with archive.open(info) as content:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            # The archive's directory may claim more bytes than the file has.
            check_unpacked(label, min(info.compress_size, stored_size(file.fileno())), info.file_size)
            array: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
            return array
        with Counting(f"MB of {label} compared with its checksum") as counting:
            for _ in counting(iter(partial(content.read, _CHUNK), b"")):  # zipfile compares it at the end
                pass
    return np.memmap(path, dtype, "r", _data(file, info) + start, shape, "F" if is_fortran else "C")


def _data(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Return where a member's data begin."""
    file.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return int(info.header_offset + _LOCAL_HEADER.size + name + extra)
