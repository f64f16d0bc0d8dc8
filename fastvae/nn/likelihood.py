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
    """p(x | z), as the decoder's output for z says it. A subclass defines the nll and the mean of the distribution.

    ``nll`` means one quantity everywhere in fastvae: ``-log p(x | z)`` in nats, without the constant :meth:`left_out`.

    is_sharp: True if rounding the decoder's output to 16 bits may change the nll; then, in runs of bf16 or fp16, the
        decoder's last layer computes in fp32. A likelihood of your own is taken to be sharp unless it says otherwise.
    couples_rows: True if the nll is not a sum over the rows, but a function of a statistic of the batch.
    is_code_length: True if the nll is that of 8-bit pixels as 256 values, which is also reported in bits per dimension.
    """

    is_sharp = True
    couples_rows = False
    is_code_length = False

    @abstractmethod
    def nll(self, output: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
        """``-log p(x | z)`` in nats, without :meth:`left_out`, of ``target`` (B, C, ...), uint8 or floating."""

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """The expected pixels, in the shape of the target; in [0, 1] if the distribution is."""

    def left_out(self, values: int) -> float:  # noqa: ARG002 -- subclasses use it, as below
        """Return the constant that :meth:`nll` leaves out of ``-log p(x | z)``, in nats for so many pixel values."""
        return 0.0

    def objection(self, pixels: Tensor) -> str | None:  # noqa: ARG002
        """Return the reason why ``nll + left_out`` is not ``-log p(x | z)`` of such pixels (B, ...); None if it is."""
        return None

    def to_sum(self, nll: Tensor, values: int) -> Tensor:  # noqa: ARG002
        """Return what adds up over batches, given the nll summed over one () and its number of pixel values."""
        return nll

    def from_sum(self, total: Tensor, values: int) -> Tensor:  # noqa: ARG002
        """Return the nll of several batches as one, given the total of :meth:`to_sum` and the number of values."""
        return total


def halves(name: str, output: Tensor) -> tuple[Tensor, Tensor]:
    """Split two predictions a pixel, packed in dimension 1, into the first half and the second."""
    if output.ndim < 2 or output.shape[1] % 2:
        raise ValueError(f"{name} needs an output with an even dimension 1, but it has shape {tuple(output.shape)}")
    first, second = output.chunk(2, dim=1)
    return first, second
