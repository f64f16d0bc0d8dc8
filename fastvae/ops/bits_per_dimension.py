"""The unit in which likelihoods of images are published."""

import math
from typing import TypeVar

from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def bits_per_dimension(nll: Number, dimensions: int) -> Number:
    """Convert nats per sample, of an NLL or a negative ELBO, to bits per dimension: ``nll / (dimensions * ln 2)``.

    Args:
        nll: nats per sample (reduction "batchmean" or "none"), a number or a tensor.
        dimensions: those of one sample, channels included: 3072 for 32 x 32 pixels in colour.

    The result is comparable with published figures only for a likelihood of discrete pixels, such as
    :func:`discretized_logistic_mixture_nll` or :func:`categorical_nll` with 256 classes: there, pixels spread evenly
    over 256 values cost 8 bits.

    >>> bits_per_dimension(3072 * math.log(256), 3072)
    8.0
    """
    return nll / (dimensions * math.log(2))
