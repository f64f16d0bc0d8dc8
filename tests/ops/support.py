"""The definition of a case of the contract, and the accuracy rule. The cases themselves are in cases.py."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import pytest
import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SHAPES = ((1, 1), (3, 5), (7, 784), (5, 2), (4, 3, 8, 8), (6,), (0, 4), (4, 0))
TYPICAL_SHAPES = ((3, 5), (4, 3, 8, 8))
REDUCTIONS = ("batchmean", "sum", "none")

# The error that a backend may have beyond that of same-type eager, by the type of the compared tensor: the loss of bf16
# inputs is fp32, and is held to fp32.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-3, torch.float64: 1e-12}

# Triton's interpreter is NumPy, which warns of the infinities and NaNs that some tests are about.
not_finite = pytest.mark.filterwarnings(
    "ignore:(invalid value|overflow|divide by zero|All-NaN slice) encountered:RuntimeWarning"
)

Tensors = tuple[Tensor, ...]
T = TypeVar("T")


def skip_products(place: Any, dtype: torch.dtype, shape: tuple[int, ...], typical: Any = TYPICAL_SHAPES) -> None:
    if place.interpreted and dtype != torch.float32 and shape not in typical:
        pytest.skip("the interpreter takes every shape in fp32, and every type in a ragged and a whole shape")


def some(values: Sequence[T], place: Any, dtype: torch.dtype) -> Sequence[T]:
    """All values, or only the first for the interpreter in a type other than fp32, where it computes all alike."""
    return values[:1] if place.interpreted and dtype != torch.float32 else values


class Inputs(NamedTuple):
    """The inputs of an operator: the tensors it differentiates, and those it does not (target, eps)."""

    tensors: Tensors
    constants: Tensors

    def to(self, where: torch.device | torch.dtype | str) -> "Inputs":
        """Move to another device, or convert to another type; uint8 pixels keep theirs."""

        def move(tensor: Tensor) -> Tensor:
            keep = isinstance(where, torch.dtype) and not tensor.is_floating_point()
            return tensor if keep else tensor.to(where)

        return Inputs(tuple(map(move, self.tensors)), tuple(map(move, self.constants)))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        return Inputs(tuple(map(change, self.tensors)), tuple(map(change, self.constants)))


@dataclass(frozen=True)
class Case:
    """An operator, its eager reference, and a maker of their inputs. Both return a tuple of outputs."""

    name: str
    fused: Callable[..., Tensors]
    eager: Callable[..., Tensors]
    make: Callable[[tuple[int, ...], torch.dtype, torch.Generator], Inputs]
    reductions: tuple[str | None, ...] = REDUCTIONS

    def inputs(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu") -> Inputs:
        return self.make(shape, dtype, torch.Generator().manual_seed(1234)).to(device)

    @property
    def per_sample(self) -> bool:
        """True if each row has an output of its own, not only a statistic of the batch."""
        return None in self.reductions or "none" in self.reductions

    def options(self, reduction: str | None = "batchmean", weight: Any = 1.0) -> dict[str, Any]:
        """The keywords of a call; none for an operator that reduces nothing."""
        return {} if self.reductions == (None,) else {"reduction": reduction, "weight": weight}


def leaves(tensors: Tensors) -> Tensors:
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


def cotangents(outputs: Tensors, scalar: float = 1.0) -> Tensors:
    """A gradient for every output: ``scalar`` for a reduced loss, seeded noise of both signs for all others."""
    generator = torch.Generator().manual_seed(99)
    return tuple(
        torch.full_like(output, scalar)
        if output.ndim == 0
        else torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
        for output in outputs
    )


def value_and_grad(
    function: Callable[..., Tensors], inputs: Inputs, scalar: float = 1.0, **options: Any
) -> tuple[Tensors, Tensors]:
    """Outputs of a call, and the gradients of its differentiable tensors for the :func:`cotangents`."""
    tensors = leaves(inputs.tensors)
    outputs = function(*tensors, *inputs.constants, **options)
    gradients = torch.autograd.grad(outputs, tensors, cotangents(outputs, scalar))
    return tuple(output.detach() for output in outputs), gradients


def error(actual: Tensor, truth: Tensor) -> float:
    """The largest deviation, relative to the largest magnitude of the truth: ``max|a - t| / max|t|``.

    Where the truth is not finite the value must be the very same (NaN for NaN, inf of the same sign), or the error
    is infinite. Where the truth is all zeros, the deviation itself.
    """
    actual = actual.detach().double().cpu()
    truth = truth.detach().double().cpu()
    assert actual.shape == truth.shape
    if not truth.numel():
        return 0.0
    finite = truth.isfinite()
    if not torch.equal(actual[~finite].nan_to_num(7.0), truth[~finite].nan_to_num(7.0)):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = truth[finite].abs().max().item()
    deviation = (actual[finite] - truth[finite]).abs().max().item()
    return float("inf") if deviation != deviation else deviation / (scale or 1.0)


def assert_accurate(case: Case, inputs: Inputs, backend: str, scalar: float = 1.0, **options: Any) -> None:
    """The accuracy rule, for every output and gradient: error <= error of same-type eager + TOLERANCE.

    Both errors are measured against eager in fp64 on the same inputs.
    """
    actual = value_and_grad(case.fused, inputs, scalar, backend=backend, **options)
    eager = value_and_grad(case.eager, inputs, scalar, **options)
    truth = value_and_grad(case.eager, inputs.to(torch.float64), scalar, **options)
    for kind, ours, theirs, exact in zip(("output", "gradient"), actual, eager, truth, strict=True):
        for index, (a, e, t) in enumerate(zip(ours, theirs, exact, strict=True)):
            assert a.dtype == e.dtype
            loss = error(a, t)
            allowed = error(e, t) + TOLERANCE[a.dtype]
            assert loss <= allowed, f"{kind} {index} of {case.name}({options}): error {loss:.3g}, allowed {allowed:.3g}"


def assert_close(actual: Tensors, expected: Tensors, factor: float = 1.0) -> None:
    """Two results that should differ by rounding alone, within the tolerance of their type (times ``factor``)."""
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        assert error(a, e) <= factor * TOLERANCE[a.dtype]


def assert_same_bits(actual: Tensors, expected: Tensors) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        assert torch.equal(a.nan_to_num(7.0), e.nan_to_num(7.0))


def layouts(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same numbers, as a caller may hold them: in other strides, among other data."""
    batch, *event = tensor.shape
    yield "transposed", tensor.movedim(0, -1).contiguous().movedim(-1, 0)
    yield "every second row", torch.stack((tensor, torch.zeros_like(tensor)), 1).flatten(0, 1)[::2]
    yield "first half of a packed head", torch.cat((tensor, torch.zeros_like(tensor)), 1)[:, : event[0]]
    yield "second half of a packed head", torch.cat((torch.zeros_like(tensor), tensor), 1)[:, event[0] :]
    yield "a view that starts unaligned", torch.cat((tensor.new_zeros(1), tensor.flatten()))[1:].view(batch, *event)
    if tensor.ndim == 4:
        yield "channels last", tensor.to(memory_format=torch.channels_last)
