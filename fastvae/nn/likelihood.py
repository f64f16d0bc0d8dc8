"""The meaning of a decoder's output: a distribution over pixels."""

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
    """p(x | decoder output). A subclass defines the nll and the mean of the distribution.

    is_sharp: True if rounding the decoder's output to 16 bits may change the nll; then, in runs of bf16 or fp16, the
        decoder's last layer computes in fp32. A likelihood of your own is taken to be sharp unless it says otherwise.
    is_code_length: True if the nll is that of 8-bit pixels as 256 values, which is also reported in bits per dimension.
    """

    is_sharp = True
    is_code_length = False

    @abstractmethod
    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        """Negative log-likelihood in nats of ``target`` (B, C, ...), uint8 or floating, given the decoder's output."""

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """The expected pixels, in the shape of the target; in [0, 1] if the distribution is."""


def halves(name: str, output: Tensor) -> tuple[Tensor, Tensor]:
    """Split two predictions a pixel, packed in dimension 1, into the first half and the second."""
    if output.ndim < 2 or output.shape[1] % 2:
        raise ValueError(f"{name} needs an output with an even dimension 1, but it has shape {tuple(output.shape)}")
    first, second = output.chunk(2, dim=1)
    return first, second
