"""What a decoder's output means: a distribution over pixels in [0, 1]."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from .. import ops
from ..ops import Backend, Reduction


class Likelihood(nn.Module):
    """p(x | decoder output). A subclass says what the nll and the mean of the distribution are."""

    bounded: bool  # whether targets outside [0, 1] have no likelihood

    @abstractmethod
    def nll(
        self,
        output: Tensor,
        target: Tensor,
        *,
        reduction: Reduction = "batchmean",
        weight: float | Tensor = 1.0,
        backend: Backend = "auto",
    ) -> Tensor:
        """Negative log-likelihood in nats of ``target`` (B, ...), uint8 or floating, given ``output`` (B, ...)."""

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """The expected pixels, same shape as ``output``."""


class Bernoulli(Likelihood):
    """Pixels as probabilities; the decoder puts out logits.

    >>> Bernoulli().mean(torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])
    """

    bounded = True

    def nll(
        self,
        output: Tensor,
        target: Tensor,
        *,
        reduction: Reduction = "batchmean",
        weight: float | Tensor = 1.0,
        backend: Backend = "auto",
    ) -> Tensor:
        """:func:`fastvae.ops.bernoulli_nll` of logits ``output``."""
        return ops.bernoulli_nll(output, target, reduction=reduction, weight=weight, backend=backend)

    def mean(self, output: Tensor) -> Tensor:
        """``sigmoid(output)``."""
        return torch.sigmoid(output)


class Gaussian(Likelihood):
    """Pixels with Gaussian noise of one fixed variance; the decoder puts out their mean.

    >>> Gaussian(variance=0.5).nll(torch.zeros(1, 2), torch.ones(1, 2))
    tensor(2.)
    """

    bounded = False

    def __init__(self, variance: float = 1.0) -> None:
        super().__init__()
        self.variance = variance

    def nll(
        self,
        output: Tensor,
        target: Tensor,
        *,
        reduction: Reduction = "batchmean",
        weight: float | Tensor = 1.0,
        backend: Backend = "auto",
    ) -> Tensor:
        """:func:`fastvae.ops.gaussian_nll` of means ``output``, without its constant."""
        return ops.gaussian_nll(output, target, self.variance, reduction=reduction, weight=weight, backend=backend)

    def mean(self, output: Tensor) -> Tensor:
        """``output`` itself."""
        return output


def as_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """A likelihood by name ("bernoulli", "gaussian") or as it is. Raises ValueError for another name."""
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood == "bernoulli":
        return Bernoulli()
    if likelihood == "gaussian":
        return Gaussian()
    raise ValueError(f"likelihood must be 'bernoulli', 'gaussian' or a fastvae.nn.Likelihood, not {likelihood!r}")
