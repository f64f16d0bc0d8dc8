"""Images in a file that is mapped into memory: all processes share the parts that the system keeps in memory."""

import math
import mmap
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvae.utils.errors import InputError
from fastvae.utils.files import open_regular, reason
from fastvae.utils.machine import memory


class MemmapSource:
    """A :class:`.Source` over a file of nothing but uint8 images, one after the other, each (H, W, C).

    Each process that gets it maps the file for itself: a pickle has the path alone. Nothing is ever written.

    Args:
        file: the path of a file of N * H * W * C bytes.
        shape: (N, C, H, W).

    Raises:
        InputError: the file cannot be read, or has another size; in use, it was cut short.
    """

    def __init__(self, file: Path, shape: tuple[int, int, int, int]) -> None:
        self.file = file.absolute()
        self.shape = shape
        self.dtype = torch.uint8
        count, channels, height, width = shape
        self._row_bytes = channels * height * width
        try:
            # torch.from_file makes a private map, which counts as memory and is refused for a file larger than that.
            with open_regular(file) as opened:
                _check_size(file, os.fstat(opened.fileno()).st_size, math.prod(shape))
                self._map = mmap.mmap(opened.fileno(), math.prod(shape), prot=mmap.PROT_READ)
        except OSError as error:
            raise InputError(f"{file}: can't be read ({reason(error)}): give the path of a cache") from error
        with warnings.catch_warnings():  # torch warns that the map is read-only
            warnings.simplefilter("ignore", UserWarning)
            self._rows = torch.frombuffer(self._map, dtype=torch.uint8).view(count, height, width, channels)
        # The system reads ahead in the file. So a small file is in memory soon; but a large one is read in random
        # order, and most of that would be in vain. There, `read` says what it needs.
        self._is_large = math.prod(shape) > memory() // 2
        if self._is_large:
            self._map.madvise(mmap.MADV_RANDOM)

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Sequence[int]) -> Tensor:
        """Copy images, in channels_last; other threads run meanwhile."""
        check_whole(self.file, self._map, len(self._map))
        if self._is_large:
            for index in indices:  # asks for all of them before it waits for the first
                start = index * self._row_bytes
                page = start // mmap.PAGESIZE * mmap.PAGESIZE
                self._map.madvise(mmap.MADV_WILLNEED, page, start + self._row_bytes - page)
        return self._rows.index_select(0, torch.as_tensor(indices, dtype=torch.int64)).permute(0, 3, 1, 2)

    def __reduce__(self) -> tuple[Any, ...]:
        return MemmapSource, (self.file, self.shape)


def check_whole(file: object, mapped: mmap.mmap, end: int) -> None:
    """Refuse to read a file that was cut short since it was mapped: the system would end the process, by SIGBUS.

    Args:
        mapped: the map of all or a part of the file, which keeps it open. end: the bytes that the file must have.
    """
    check_length(file, mapped.size(), end)


def check_length(file: object, held: int, end: int) -> None:
    """Raise InputError for a file that has fewer bytes than when it was opened."""
    if held < end:
        raise InputError(
            f"{file}: was cut short while it was in use, it has {held:,} bytes, not {end:,}: make it again, and start "
            "again"
        )


def _check_size(file: Path, found: int, expected: int) -> None:
    if found != expected:
        raise InputError(
            f"{file}: has {found:,} bytes, not {expected:,}: remove the folder {file.parent}, and it is made again"
        )
