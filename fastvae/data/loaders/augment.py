"""What is cut and mirrored of a training image: a pure function of (seed, epoch, image)."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastvae.reference.noise import philox4x32
from fastvae.utils.errors import InputError

PLACE_STREAM = 2**31 + 2  # the fourth counter word: no other draw of a run has it


class Places(NamedTuple):
    """Where images are cut, and which are mirrored.

    top, left: int64 (n,), in pixels. flip: bool (n,).
    """

    top: Tensor
    left: Tensor
    flip: Tensor


@dataclass(frozen=True)
class Augment:
    """Cuts ``size`` x ``size`` pixels out of images of ``resized`` x ``resized``, and mirrors some.

    Image i in an epoch has the words (w0, w1, w2) of Philox4x32-10 with key = (seed mod 2**32, seed div 2**32) and
    counter = (i mod 2**32, i div 2**32, epoch, PLACE_STREAM). With d = resized - size + 1 places to choose from, it is
    cut at top = w0 * d div 2**32 and left = w1 * d div 2**32, and mirrored left to right where w2 >= 2**31. So all
    loaders cut alike, and a run that goes on does.

    Args:
        size, resized: sides in pixels, size <= resized.
        flip: whether to mirror.
        random_crop: whether to draw the place; else it is the middle, (resized - size) div 2.
        seed: the run's.

    Raises:
        InputError: a size out of its range.

    >>> import torch
    >>> augment = Augment(2, 3, flip=False, random_crop=True, seed=0)
    >>> image = torch.arange(9).view(1, 1, 3, 3)
    >>> [augment(image, epoch, torch.tensor([0])).flatten().tolist() for epoch in range(3)]
    [[0, 1, 3, 4], [3, 4, 6, 7], [0, 1, 3, 4]]
    """

    size: int
    resized: int
    flip: bool
    random_crop: bool
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resized:
            raise InputError(f"no {self.size} x {self.size} pixels can be cut out of {self.resized} x {self.resized}")

    def centred(self) -> "Augment":
        """For evaluation: the middle, not mirrored."""
        return replace(self, flip=False, random_crop=False)

    def places(self, epoch: int, indices: Tensor) -> Places:
        """For images ``indices`` int64 (n,) in an epoch, on their device."""
        if not (self.flip or self.random_crop):
            middle = torch.full_like(indices, (self.resized - self.size) // 2)
            return Places(middle, middle, torch.zeros_like(indices, dtype=torch.bool))

        def word(value: int) -> Tensor:
            return torch.full((), value % 2**32, dtype=torch.int64, device=indices.device)

        counter = (indices % 2**32, indices >> 32, word(epoch), word(PLACE_STREAM))
        first, second, third, _ = philox4x32(counter, (word(self.seed), word(self.seed >> 32)))
        choices = self.resized - self.size + 1 if self.random_crop else 1
        offset = 0 if self.random_crop else (self.resized - self.size) // 2
        top, left = ((draw * choices >> 32) + offset for draw in (first, second))
        return Places(top, left, third >= 2**31 if self.flip else torch.zeros_like(third, dtype=torch.bool))

    def __call__(self, images: Tensor, epoch: int, indices: Tensor) -> Tensor:
        """Images (n, C, resized, resized) to (n, C, size, size), in their type, device and memory format.

        ``indices`` int64 (n,) says which of the data set they are.
        """
        top, left, flip = self.places(epoch, indices.to(images.device))
        along = torch.arange(self.size, device=images.device)
        rows = top[:, None] + along
        columns = left[:, None] + torch.where(flip[:, None], self.size - 1 - along, along)
        # Pixels are gathered with their channels, so that images in channels_last are read, and stay, as they are.
        each = torch.arange(len(images), device=images.device)[:, None, None]
        cut = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return cut if images.is_contiguous(memory_format=torch.channels_last) else cut.contiguous()

    def in_middle(self, images: Tensor) -> Tensor:
        """Images as :meth:`centred` cuts them, a view."""
        begin = (self.resized - self.size) // 2
        return images[:, :, begin : begin + self.size, begin : begin + self.size]
