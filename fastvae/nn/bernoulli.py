"""Likelihoods of pixels in [0, 1], on logits."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from fastvae import ops

from .likelihood import Likelihood, Options

# B_2k / (2k)! of the Bernoulli numbers, k = 1 to 7: 1 / (1 - e**-l) - 1 / l = 1/2 + sum_k B_2k / (2k)! * l**(2k - 1).
# The next term is below 1e-17 for |l| < 1/2.
_SERIES = (
    1 / 12,
    -1 / 720,
    1 / 30240,
    -1 / 1209600,
    1 / 47900160,
    -691 / 1307674368000,
    1 / 74724249600,
)


class Bernoulli(Likelihood):
    """Pixels as probabilities; the decoder returns logits. :func:`fastvae.ops.bernoulli_nll`.

    It is a likelihood of black and white pixels. For grey ones, its nll is a cross-entropy, whose ``e**-nll`` does not
    integrate to 1.

    >>> Bernoulli().mean(torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])
    """

    is_sharp = False

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.bernoulli_nll(output, target, **options)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)

    def objection(self, pixels: Tensor) -> str | None:
        white = 255 if pixels.dtype == torch.uint8 else 1
        is_grey = bool(((pixels != 0) & (pixels != white)).any())
        return "the cross-entropy of grey pixels is not normalised" if is_grey else None


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
        near = output.abs() < 0.5  # a series there: the formula is 0 / 0 at 0
        square = torch.where(near, output, torch.zeros_like(output)).square()
        slope = torch.zeros_like(output)
        for coefficient in reversed(_SERIES):
            slope = slope * square + coefficient
        safe = torch.where(near, torch.ones_like(output), output)
        return torch.where(near, 0.5 + output * slope, -1 / torch.expm1(-safe) - 1 / safe)
