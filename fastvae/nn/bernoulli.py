"""Likelihoods of pixels in [0, 1], on logits."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from fastvae import ops

from .likelihood import Likelihood, Options


class Bernoulli(Likelihood):
    """Pixels as probabilities; the decoder returns logits. :func:`fastvae.ops.bernoulli_nll`.

    >>> Bernoulli().mean(torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])
    """

    is_sharp = False

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.bernoulli_nll(output, target, **options)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)


class ContinuousBernoulli(Likelihood):
    """The Bernoulli normalised over grey pixels; the decoder returns logits.
    :func:`fastvae.ops.continuous_bernoulli_nll`.

    Its mean is not the sigmoid, but ``1 / (1 - e**-l) - 1 / l`` (Loaiza-Ganem & Cunningham 2019, equation 8).

    >>> ContinuousBernoulli().mean(torch.tensor([[0.0, 4.0]]))
    tensor([[0.5000, 0.7687]])
    """

    is_sharp = False

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.continuous_bernoulli_nll(output, target, **options)

    def mean(self, output: Tensor) -> Tensor:
        near = output.abs() < 0.1  # a series there: the formula is 0 / 0 at 0
        safe = torch.where(near, torch.ones_like(output), output)
        return torch.where(near, 0.5 + output / 12, -1 / torch.expm1(-safe) - 1 / safe)
