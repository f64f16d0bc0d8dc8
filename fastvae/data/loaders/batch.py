"""A batch of images, as every loader delivers it."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One process's share of one global batch.

    images: (b, C, H, W) on the device, uint8 (read as x/255) or fp32, in the memory format that the source gives
        (channels_last for decoded pictures); b may be 0 in a small last batch.
    row_offset: the place of the first of these rows in the global batch, as :class:`fastvae.Noise` takes it.
    rows: the size of the global batch, over all processes.
    """

    images: Tensor
    row_offset: int
    rows: int
