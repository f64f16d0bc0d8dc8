"""The two protocols of the data layer: pictures as their files have them, and images of one size by index."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class EncodedPictures(Protocol):
    """Pictures of any size as their files have them, by index: in a folder, in a list, in archives."""

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> bytes:
        """Return one picture's JPEG, PNG or WebP. Raises OSError where it cannot be read."""

    def name(self, index: int) -> str:
        """Return where the picture is, for people: a path, or an archive's path and the member in it."""

    def file(self, index: int) -> bytes:
        """Return the path of a file or a folder that changes when the picture does."""


class Source(Protocol):
    """Images of one size, by index alone: any process may read them in any order, and finds the same.

    shape: (N, C, H, W). dtype: torch.uint8 or torch.float32.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Tensor:
        """Return images (n, C, H, W) on the host. Raises InputError, one line with its name, for a broken one."""
