"""Images of 8 bits whose pixels are only 0 and 1, as dSprites has them: x/255 would make them all but black."""

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from fastvae.data.formats.file_names import warn
from fastvae.data.sources.decoded import DecodedSource
from fastvae.data.sources.source import Source
from fastvae.data.sources.tensor import TensorSource
from fastvae.utils.errors import InputError

_PART = 64  # images looked at together
_PICTURES = 16  # pictures that are decoded to look at, at most


class BlackAndWhiteSource:
    """A :class:`.Source` of uint8 pixels 0 and 1, read as 0 and 255."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.shape = source.shape
        self.dtype = source.dtype

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int]) -> Tensor:
        return self._source.read(indices) * 255


def black_and_white(train: Source, test: Source, label: str) -> tuple[Source, Source]:
    """Return two splits whose uint8 pixels are all 0 or 1, and not all 0, as 0 and 255; others as they are.

    One line of the log says so. Arrays are read until a pixel is larger. For pictures in files, which would all
    have to be decoded, only the first 16 are read, and the line is a warning.
    """
    splits = (train, test)
    if isinstance(train, DecodedSource):
        if _decoded_highest(train) == 1:
            warn(
                f"{label}: its first pictures have the pixels 0 and 1 alone, of 255, and are all but black: "
                "multiply them by 255"
            )
        return splits
    highest = 0
    for split in splits:
        highest = max(highest, _highest(split))
        if highest > 1:
            return splits
    if highest == 0:
        return splits
    warn(f"{label}: its pixels are only 0 and 1, in uint8: they are read as black and white (0 and 255)")
    whole_train, whole_test = (
        TensorSource(split.images * 255) if isinstance(split, TensorSource) else BlackAndWhiteSource(split)
        for split in splits
    )
    return whole_train, whole_test


def _highest(source: Source) -> int:
    """Return the highest pixel, or the first that is above 1; 255 for images that are not of 8 bits."""
    if source.dtype != torch.uint8:
        return 255
    if isinstance(source, TensorSource):
        return int(source.images.max()) if source.images.numel() else 0
    highest = 0
    for start in range(0, len(source), _PART):
        highest = max(highest, int(source.read(range(start, min(start + _PART, len(source)))).max()))
        if highest > 1:
            break
    return highest


def _decoded_highest(source: DecodedSource) -> int:
    highest = 0
    for index in range(min(_PICTURES, len(source))):
        with suppress(InputError):  # a broken picture is reported, or skipped, when it is read
            highest = max(highest, int(source.decode(index).max()))
        if highest > 1:
            break
    return highest
