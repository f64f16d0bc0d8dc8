"""What is told of some images: the loss and its two terms."""

import math
from typing import NamedTuple

from torch import Tensor


class Terms(NamedTuple):
    """What is minimised, and the two terms of the negative ELBO, in nats per sample, averaged over some images.

    In evaluation ``loss`` is the negative ELBO, whatever was minimised.
    """

    loss: float
    nll: float
    kl: float

    @classmethod
    def of(cls, sums: Tensor, images: int) -> "Terms":
        """From the sums ``[loss, nll, kl]`` over a number of images, of which a fourth says how many were left out.

        NaN where there are none. Waits for the device.
        """
        loss, nll, kl, *left_out = sums.tolist()
        images -= int(sum(left_out))
        return cls(*(value / images if images else math.nan for value in (loss, nll, kl)))
