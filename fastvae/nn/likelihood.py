"""What a decoder's output means: a distribution over pixels."""

from abc import abstractmethod
from typing import TypedDict

from torch import Tensor, nn
from typing_extensions import Unpack

from fastvae.ops import Backend, Reduction


class Options(TypedDict, total=False):
    """The keywords of every fused loss; :mod:`fastvae.ops` says what each does."""

    reduction: Reduction
    weight: float | Tensor
    backend: Backend


class Likelihood(nn.Module):
    """p(x | decoder output). A subclass says what the nll and the mean of the distribution are.

    is_code_length: whether the nll is one of 8-bit pixels as 256 values, so that it is told in bits per dimension too.
    """

    is_code_length = False

    @abstractmethod
    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        """Negative log-likelihood in nats of ``target`` (B, C, ...), uint8 or floating, given the decoder's output."""

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """The expected pixels, in [0, 1] where the distribution is, in the shape of the target."""


def halves(name: str, output: Tensor) -> tuple[Tensor, Tensor]:
    """Two predictions a pixel, packed in dimension 1: the first half, the second half."""
    if output.ndim < 2 or output.shape[1] % 2:
        raise ValueError(f"{name} needs an output with an even dimension 1, but it has shape {tuple(output.shape)}")
    first, second = output.chunk(2, dim=1)
    return first, second
