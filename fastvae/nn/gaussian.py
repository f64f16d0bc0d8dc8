"""Likelihoods of real-valued pixels. Their nll leaves out the constant of the density."""

import math

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from fastvae import ops

from .likelihood import Likelihood, Options, halves

# A fixed deviation below which rounding means in [0.5, 1] to bf16, by 2**-8 / 12**0.5, costs over 7e-4 nats a pixel.
_SHARP = 0.03


class _Centred(Likelihood):
    """The decoder returns the mean itself."""

    def mean(self, output: Tensor) -> Tensor:
        return output


class Gaussian(_Centred):
    """Pixels with Gaussian noise of one fixed variance. :func:`fastvae.ops.gaussian_nll`, without its constant.

    >>> Gaussian(variance=0.5).nll(torch.zeros(1, 2), torch.ones(1, 2))
    tensor(2.)
    """

    def __init__(self, variance: float = 1.0) -> None:
        super().__init__()
        self.variance = variance
        self.is_sharp = variance < _SHARP**2

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.gaussian_nll(output, target, self.variance, **options)

    def left_out(self, values: int) -> float:
        """``values / 2 * log(2 pi variance)``: 720.45 nats for 784 values of variance 1."""
        return values / 2 * math.log(2 * math.pi * self.variance)


class LearnedGaussian(_Centred):
    """Gaussian noise of one variance for all pixels, learned with the decoder: the parameter ``logvar``.
    :func:`fastvae.ops.gaussian_logvar_nll`.

    >>> [name for name, _ in LearnedGaussian().named_parameters()]
    ['logvar']
    """

    def __init__(self, logvar: float = 0.0) -> None:
        super().__init__()
        self.logvar = nn.Parameter(torch.tensor(logvar))

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.gaussian_logvar_nll(output, self.logvar, target, **options)

    def left_out(self, values: int) -> float:
        return values / 2 * math.log(2 * math.pi)


class OptimalGaussian(_Centred):
    """Gaussian noise of the variance that fits each batch best (sigma-VAE). :func:`fastvae.ops.optimal_gaussian_nll`.

    In evaluation one variance is fitted to all images together, from the sum of their squared errors, so that the
    figure does not depend on the batch size. It has no value per sample: ``reduction="none"`` raises a ValueError.
    """

    couples_rows = True

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.optimal_gaussian_nll(output, target, **options)  # type: ignore[arg-type]  # the op refuses "none"

    def left_out(self, values: int) -> float:
        return values / 2 * (1 + math.log(2 * math.pi))

    def objection(self, pixels: Tensor) -> str | None:  # noqa: ARG002 -- it does not depend on them
        return "the variance is fitted to the very images that are evaluated"

    def to_sum(self, nll: Tensor, values: int) -> Tensor:
        """The sum of squared errors."""
        return values * torch.exp(2 / values * nll) if values else torch.zeros_like(nll)

    def from_sum(self, total: Tensor, values: int) -> Tensor:
        return values / 2 * torch.log(total / values)


class GaussianHead(Likelihood):
    """Gaussian noise with a log-variance for each pixel: the decoder returns means, then log-variances, in dimension
    1 (twice the target's channels). :func:`fastvae.ops.gaussian_logvar_nll`.

    >>> GaussianHead().nll(torch.zeros(1, 4), torch.ones(1, 2))
    tensor(1.)
    """

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.gaussian_logvar_nll(*halves("GaussianHead", output), target, **options)

    def left_out(self, values: int) -> float:
        return values / 2 * math.log(2 * math.pi)

    def mean(self, output: Tensor) -> Tensor:
        return halves("GaussianHead", output)[0]


class Laplace(_Centred):
    """Laplace noise of one fixed scale: the absolute error. :func:`fastvae.ops.laplace_nll`, without its constant.

    >>> Laplace(scale=0.5).nll(torch.zeros(1, 2), torch.ones(1, 2))
    tensor(4.)
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.is_sharp = scale < _SHARP

    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        return ops.laplace_nll(output, target, self.scale, **options)

    def left_out(self, values: int) -> float:
        return values * math.log(2 * self.scale)
