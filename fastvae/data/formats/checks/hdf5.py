"""Checks of HDF5 files: chunks are measured before HDF5 unpacks them, and links to other files are refused."""

import itertools
import zlib
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from fastvae.data.sources.unpacking_limits import as_input_error
from fastvae.utils.errors import InputError
from fastvae.utils.files import check_regular

_DEFLATE = 1  # HDF5's numbers of its filters
_SHUFFLE = 2
_FLETCHER = 3
_HARMLESS = 256 << 10  # bytes: deflate makes at most 1,032 times as many of them
_PART = 1 << 20  # bytes unpacked at a time


class Chunks:
    """The chunks of a data set that deflate packs, each of which may unpack to its declared size at most.

    Args:
        dataset: h5py's. label: what it is called, for people.

    Raises:
        InputError: it is packed by several filters, so that the unpacked size cannot be known.
    """

    def __init__(self, dataset: Any, label: str) -> None:
        settings = dataset.id.get_create_plist()
        filters = [settings.get_filter(place)[0] for place in range(settings.get_nfilters())]
        packers = [number for number in filters if number not in (_SHUFFLE, _FLETCHER)]
        if len(packers) > 1:
            raise InputError(f"{label}: is packed by {len(packers)} filters on top of one another: save it with one")
        self._dataset = dataset
        self._label = label
        self._is_deflated = packers == [_DEFLATE]
        self._checked: set[int] = set()

    def check(self, rows: Iterable[int]) -> None:
        """Raise InputError if a chunk of some rows, not looked at before, unpacks to more than it should."""
        if not self._is_deflated:
            return
        sizes = self._dataset.chunks
        shape = self._dataset.shape
        for first in sorted({int(row) // sizes[0] for row in rows} - self._checked):
            self._checked.add(first)
            others = (range(0, extent, size) for extent, size in zip(shape[1:], sizes[1:], strict=True))
            for place in itertools.product((first * sizes[0],), *others):
                self._check(place)

    def _check(self, place: tuple[int, ...]) -> None:
        info = self._dataset.id.get_chunk_info_by_coord(place)
        if info.byte_offset is None or info.size <= _HARMLESS or info.filter_mask:
            return
        declared = self._dataset.dtype.itemsize
        for size in self._dataset.chunks:
            declared *= size
        stream = zlib.decompressobj()
        unpacked = 0
        packed = self._dataset.id.read_direct_chunk(place)[1]
        while packed and unpacked <= declared + 4:  # Fletcher's checksum
            unpacked += len(stream.decompress(packed, _PART))
            packed = stream.unconsumed_tail
        if unpacked > declared + 4:
            raise InputError(
                f"{self._label}: a chunk of {info.size:,} bytes unpacks to more than the {declared:,} it declares: "
                "save it again"
            )


def check_alone(path: Path) -> None:
    """Raise InputError where any array of an HDF5 file lies in another file, or the file cannot be read."""
    with as_input_error(lambda why: f"{path}: can't be read as HDF5 ({why}): give a complete HDF5 file"):
        check_regular(path)
        h5py = load_h5py(path)
        with h5py.File(path, "r") as file:
            found = arrays_of(file)
            for name in found:
                check_inside(path, name, found)
            for name in file:  # a reader that opens it by name would follow a link
                link = file.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    raise InputError(f"{path}:{name}: is a link to another file, {link.filename}: put its array there")


def arrays_of(file: Any) -> dict[str, Any]:
    """Return the arrays of a file by their names; links to other files are not followed."""
    found: dict[str, Any] = {}
    file.visititems(lambda name, item: found.update({name: item} if getattr(item, "shape", None) else {}))
    return found


def check_inside(path: Path, key: str, found: dict[str, Any]) -> None:
    """Refuse an array whose bytes are not all in the file itself: it could name any file of this machine."""
    todo = [key]
    seen = set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        Chunks(found[name], f"{path}:{name}")
        outside = [str(file) for file, *_ in found[name].external or ()]
        for source in found[name].virtual_sources() if found[name].is_virtual else ():
            part = source.dset_name.strip("/")
            if source.file_name == "." and part in found and "%" not in part:  # % stands for many names
                todo.append(part)
            else:
                outside.append(f"{source.file_name}:{source.dset_name}")
        if outside:
            raise InputError(
                f"{path}:{name}: has its bytes outside of the file, in {outside[0]}: copy all of it into one file, "
                "with h5repack for one"
            )


def load_h5py(path: Path) -> Any:
    """Import h5py. Raises InputError, which names the file that needs it, if it is not installed."""
    try:
        return import_module("h5py")  # optional
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: HDF5 files need h5py, which is not installed: pip install fastvae[hdf5]") from error
