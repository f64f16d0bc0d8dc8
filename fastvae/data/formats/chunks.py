"""Chunks of HDF5 data sets, looked at before HDF5 unpacks them: it takes as much memory as what is in them asks for."""

import itertools
import zlib
from collections.abc import Iterable
from typing import Any

from ...errors import InputError

_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3  # HDF5's numbers of its filters
_HARMLESS = 256 << 10  # bytes: deflate makes at most 1,032 times as many of them
_PART = 1 << 20  # bytes unpacked at a time


class Chunks:
    """The chunks of a data set that deflate packs, each of which may unpack to its declared size at most.

    Args:
        dataset: h5py's. label: what it is called, for people.

    Raises:
        InputError: it is packed by more than one filter, so that nothing can be told of its size.
    """

    def __init__(self, dataset: Any, label: str) -> None:
        settings = dataset.id.get_create_plist()
        filters = [settings.get_filter(place)[0] for place in range(settings.get_nfilters())]
        packers = [number for number in filters if number not in (_SHUFFLE, _FLETCHER)]
        if len(packers) > 1:
            raise InputError(f"{label}: is packed by {len(packers)} filters on top of one another: save it with one")
        self._dataset, self._label = dataset, label
        self._is_deflated = packers == [_DEFLATE]
        self._checked: set[int] = set()

    def check(self, rows: Iterable[int]) -> None:
        """Raise InputError if a chunk of some rows, not looked at before, unpacks to more than it should."""
        if not self._is_deflated:
            return
        sizes, shape = self._dataset.chunks, self._dataset.shape
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
        stream, unpacked = zlib.decompressobj(), 0
        packed = self._dataset.id.read_direct_chunk(place)[1]
        while packed and unpacked <= declared + 4:  # Fletcher's checksum
            unpacked += len(stream.decompress(packed, _PART))
            packed = stream.unconsumed_tail
        if unpacked > declared + 4:
            raise InputError(
                f"{self._label}: a chunk of {info.size:,} bytes unpacks to more than the {declared:,} it declares: "
                "save it again"
            )
