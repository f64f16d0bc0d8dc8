"""Augmentation: where training images are cropped and which are mirrored, a pure function of (seed, epoch, image)."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastvae.utils.errors import InputError
from fastvae.utils.philox import philox4x32

PLACE_STREAM = 2**31 + 2  # the fourth counter word, which no other draw of a run uses


class Places(NamedTuple):
    """Random crops and mirror images: the choices for each image of an epoch.

    top, left: int64 (n,), in pixels. flip: bool (n,).
    """

    top: Tensor
    left: Tensor
    flip: Tensor


@dataclass(frozen=True)
class Augment:
    """Crops images of ``resized`` x ``resized`` pixels to ``size`` x ``size``, and mirrors some.

    Image i in an epoch has the words (w0, w1, w2) of Philox4x32-10 with key = (seed mod 2**32, seed div 2**32) and
    counter = (i mod 2**32, i div 2**32, epoch, PLACE_STREAM). With d = resized - size + 1 places to choose from, it is
    cropped at top = w0 * d div 2**32 and left = w1 * d div 2**32, and mirrored left to right where w2 >= 2**31. So all
    loaders crop alike, and so does a resumed run.

    Args:
        size, resized: sides in pixels, size <= resized.
        flip: whether to mirror.
        random_crop: whether to draw the place; else it is the middle, (resized - size) div 2.
        seed: that of the run.

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
        """Return the augmentation for evaluation: the middle, not mirrored."""
        return replace(self, flip=False, random_crop=False)

    def places(self, epoch: int, indices: Tensor) -> Places:
        """Return the places of the images ``indices`` int64 (n,) in an epoch, on the same device."""
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
        """Crop images (n, C, resized, resized) to (n, C, size, size), in their type, device and memory format.

        ``indices`` int64 (n,): their places in the data set.
        """
        top, left, flip = self.places(epoch, indices.to(images.device))
        along = torch.arange(self.size, device=images.device)
        rows = top[:, None] + along
        columns = left[:, None] + torch.where(flip[:, None], self.size - 1 - along, along)
        # Pixels are gathered with their channels, so that images in channels_last are read in order, and stay so.
        each = torch.arange(len(images), device=images.device)[:, None, None]
        cut = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return cut if images.is_contiguous(memory_format=torch.channels_last) else cut.contiguous()

    def in_middle(self, images: Tensor) -> Tensor:
        """Crop images as :meth:`centred` does, to a view."""
        begin = (self.resized - self.size) // 2
        return images[:, :, begin : begin + self.size, begin : begin + self.size]
