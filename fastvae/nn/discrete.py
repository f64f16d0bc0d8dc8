"""Likelihoods of 8-bit pixels as discrete values. Their nll is a code length, which
:func:`fastvae.ops.bits_per_dimension` converts to bits per dimension.
"""

import math

import torch
from torch import Tensor
from typing_extensions import Unpack

from fastvae import ops

from ._expected_level import expected_colours, expected_level, in_parts
from .likelihood import Likelihood, Options, halves

_FLOOR = -7 - math.log(2)  # the least log-scale of a mixture, as in its nll


class DiscretizedLogistic(Likelihood):
    """A logistic for each pixel, integrated over its bin: the decoder returns means, then log-scales, in dimension 1
    (twice the target's channels), in units of pixels in [0, 1]. :func:`fastvae.ops.discretized_logistic_nll`.
    """

    is_code_length = True

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.discretized_logistic_nll(*halves("DiscretizedLogistic", output), target, **options)

    def mean(self, output: Tensor) -> Tensor:
        """The mean of the 256 levels, which differs from the logistic's own mean where that is near an end."""
        return in_parts(self._mean, output)

    def _mean(self, output: Tensor) -> Tensor:
        return expected_level(*halves("DiscretizedLogistic", output))


class DiscretizedLogisticMixture(Likelihood):
    """A mixture of logistics for each pixel of 1 or 3 channels, the likelihood of PixelCNN++: the decoder returns
    ``mixtures * 3`` channels for a grey target, ``mixtures * 10`` for RGB.
    :func:`fastvae.ops.discretized_logistic_mixture_nll` has their order.

    >>> DiscretizedLogisticMixture(5).mean(torch.zeros(2, 50, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """

    is_code_length = True

    def __init__(self, mixtures: int = 10) -> None:
        super().__init__()
        self.mixtures = mixtures

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.discretized_logistic_mixture_nll(output, target, self.mixtures, **options)

    def mean(self, output: Tensor) -> Tensor:
        """The mean of the 256 levels: the components' means, weighted by their shares.

        It is exact for grey and red. Green and blue depend on the channels before them, and are averaged over 256
        values of the three channels: that is within half a level of the mean, or nearly (0.0023 of 1 at most in 150
        random pixels).
        """
        return in_parts(self._mean, output)

    def _mean(self, output: Tensor) -> Tensor:
        planes = output.unflatten(1, (-1, self.mixtures))
        if planes.shape[1] not in (3, 10):
            raise ValueError(f"a mixture needs 3 channels a component (grey) or 10 (RGB), not {planes.shape[1]}")
        channels = 3 if planes.shape[1] == 10 else 1
        shares = torch.softmax(planes[:, 0], 1)
        locations = planes[:, 1 : 1 + channels].unbind(1)
        log_scales = planes[:, 1 + channels : 1 + 2 * channels].clamp(min=_FLOOR).unbind(1)
        if channels == 1:
            means = [expected_level(locations[0], log_scales[0])]
        else:
            means = expected_colours(locations, log_scales, torch.tanh(planes[:, 1 + 2 * channels :]).unbind(1))
        expected = torch.stack([(shares * mean).sum(1) for mean in means], 1)
        return expected.clamp(0, 1)  # rounded shares may add to more than 1


class Categorical(Likelihood):
    """A probability for each of ``classes`` grey levels, for each pixel and channel; the decoder returns
    ``classes`` logits for each channel, in dimension 1, the channels of class 0 first.
    :func:`fastvae.ops.categorical_nll`. The target holds the levels, 0 to ``classes - 1``.

    >>> Categorical(2).mean(torch.zeros(1, 2, 3))
    tensor([[[0.5000, 0.5000, 0.5000]]])
    """

    is_sharp = False

    def __init__(self, classes: int = 256) -> None:
        super().__init__()
        self.classes = classes
        self.is_code_length = classes == 256

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.categorical_nll(output.unflatten(1, (self.classes, -1)), target, **options)

    def mean(self, output: Tensor) -> Tensor:
        """The expected level, divided by the highest."""
        probabilities = torch.softmax(output.unflatten(1, (self.classes, -1)), 1)
        levels = torch.linspace(0, 1, self.classes, dtype=output.dtype, device=output.device)
        expected: Tensor = torch.tensordot(probabilities, levels, ([1], [0]))
        return expected
