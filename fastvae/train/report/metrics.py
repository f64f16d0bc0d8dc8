"""The metrics of training and evaluation: the loss and its two terms."""

import math
from typing import NamedTuple

from torch import Tensor


class Metrics(NamedTuple):
    """The loss and the two terms of the negative ELBO, averaged over some images, in nats per sample.

    loss: in training the objective that is minimised, in evaluation the negative ELBO for every objective.
    nll: ``-log p(x | z)``, without the constant :meth:`fastvae.nn.Likelihood.left_out`.
    kl: ``KL(q(z | x) || p(z))``.
    """

    loss: float
    nll: float
    kl: float

    @classmethod
    def from_sums(cls, sums: Tensor, images: int) -> "Metrics":
        """Average the sums ``[loss, nll, kl]`` over a number of images; NaN if there are none. Synchronizes.

        A fourth sum, if there is one, is the number of images in skipped steps.
        """
        loss, nll, kl, *skipped = sums.tolist()
        images -= int(sum(skipped))
        return cls(*(value / images if images else math.nan for value in (loss, nll, kl)))
