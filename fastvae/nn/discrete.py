"""Likelihoods of 8-bit pixels as what they are: 256 values. Their nll is a code length, in bits per dimension by
:func:`fastvae.ops.bits_per_dimension`.
"""

from torch import Tensor
from typing_extensions import Unpack

from .. import ops
from .likelihood import Likelihood, Options, halves


class DiscretizedLogistic(Likelihood):
    """A logistic for each pixel, integrated over its bin: the decoder puts out means, then log-scales, in dimension 1
    (twice the target's channels), in units of pixels in [0, 1]. :func:`fastvae.ops.discretized_logistic_nll`.
    """

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.discretized_logistic_nll(*halves("DiscretizedLogistic", output), target, **options)

    def mean(self, output: Tensor) -> Tensor:
        return halves("DiscretizedLogistic", output)[0].clamp(0, 1)
