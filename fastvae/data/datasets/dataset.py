"""A data set: a name, and a source of images each for training and for testing."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from fastvae.data.sources.source import Source
from fastvae.data.sources.tensor import TensorSource, as_source

_PART = 1000  # images looked at together


@dataclass(frozen=True, eq=False, init=False)
class Dataset:
    """Images for training and for testing.

    Args:
        name: what they are called, for people.
        train, test: (N, C, H, W), both uint8 (0..255, read as x/255) or both fp32. A tensor becomes a
            :class:`fastvae.data.TensorSource`.
        crop: the side in pixels of the part of each image that a model sees; None for all of it.

    >>> import torch
    >>> data = Dataset("bars", torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.full((1, 1, 8, 8), 51).byte())
    >>> data.shape, data.span
    ((1, 8, 8), (0.0, 0.2))
    """

    name: str
    train: Source
    test: Source
    crop: int | None

    def __init__(self, name: str, train: Tensor | Source, test: Tensor | Source, crop: int | None = None) -> None:
        fields = {"name": name, "train": as_source(train), "test": as_source(test), "crop": crop}
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image as a model sees it."""
        channels, height, width = self.train.shape[1:]
        return (channels, height, width) if self.crop is None else (channels, self.crop, self.crop)

    @cached_property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest pixel of both splits as a model reads them: uint8 over 255, floats as they are."""
        if self.train.dtype == torch.uint8 and not isinstance(self.train, TensorSource):
            return 0.0, 1.0  # the bounds of uint8: to look at all pixels would take as long as an epoch
        bounds = [torch.aminmax(part) for source in (self.train, self.test) for part in _parts(source)]
        scale = 255 if self.train.dtype == torch.uint8 else 1
        low, high = (torch.stack(side) for side in zip(*bounds, strict=True))
        return low.min().item() / scale, high.max().item() / scale

    def in_channels_last(self) -> "Dataset":
        """Return the data set with its images in memory in channels_last; a file's images stay as they come."""
        train, test = (
            TensorSource(source.images.contiguous(memory_format=torch.channels_last))
            if isinstance(source, TensorSource)
            else source
            for source in (self.train, self.test)
        )
        return replace(self, train=train, test=test)


def _parts(source: Source) -> Iterator[Tensor]:
    """Yield all of the images, some at a time; those in memory at once."""
    if isinstance(source, TensorSource):
        yield source.images
        return
    for start in range(0, len(source), _PART):
        yield source.read(range(start, min(start + _PART, len(source))))
