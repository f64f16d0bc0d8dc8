"""The gradient through a (leaky) ReLU, which is torch's to the bit, and that of the bias, against fp64."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastvae.ops import _library
from fastvae.ops.internal.bias_gradient import bias_gradient_

from ..support import error

# With the backend's name in theirs, the tests are among those that the sanitizers run.
pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
    pytest.mark.skipif(not _library.has_native(), reason="the C++ extension is not built: run `make setup`"),
]
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
# The last are more than a thread takes.
LARGE = [(4096, 100), (1000, 784), (3, 40_000), (257, 401)]
SLOPES = (0.0, 0.2, 1.5)


def through(gradient: Tensor, output: Tensor | None, slope: float) -> Tensor:
    """As torch computes it."""
    if output is None:
        return gradient.clone()
    if slope == 0.0:
        return torch.ops.aten.threshold_backward(gradient, output, 0)
    return torch.ops.aten.leaky_relu_backward(gradient, output, slope, self_is_result=True)


def assert_right(gradient: Tensor, output: Tensor | None, slope: float) -> None:
    expected = through(gradient, output, slope)
    before = None if output is None else output.clone()
    bias = bias_gradient_(gradient, output, slope)
    assert torch.equal(gradient, expected)
    # Zeros have a sign, which equal() does not look at.
    assert torch.equal(gradient.signbit(), expected.signbit())
    assert output is None or torch.equal(output, before)
    assert bias.shape == expected.shape[1:]
    assert bias.dtype == expected.dtype
    truth = expected.double().sum(0)
    if truth.numel():
        assert error(bias, truth) <= error(expected.sum(0), truth) + 1e-6


def draw(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Zeros of both signs among the numbers, and some that are subnormal."""
    numbers = torch.randn(rows, columns)
    numbers[torch.rand(rows, columns) < 0.1] *= 0.0
    numbers[torch.rand(rows, columns) < 0.1] *= 1e-39
    return numbers.to(dtype)


@each_dtype
@given(st.sampled_from((0, 1, 2, 31, 32, 33, 65)), st.integers(0, 70), st.sampled_from((None, *SLOPES)))
def test_every_shape(dtype: torch.dtype, rows: int, columns: int, slope: float | None) -> None:
    output = None if slope is None else draw(rows, columns, dtype)
    assert_right(draw(rows, columns, dtype), output, slope or 0.0)


@each_dtype
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_ones(shape: tuple[int, int], slope: float, dtype: torch.dtype) -> None:
    assert_right(draw(*shape, dtype), draw(*shape, dtype), slope)
    assert_right(draw(*shape, dtype), None, slope)


@each_dtype
@pytest.mark.parametrize("slope", SLOPES)
def test_every_value_is_rounded_as_torch_rounds_it(slope: float, dtype: torch.dtype) -> None:
    values = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(torch.bfloat16)
    numbers = values[~values.isnan()].view(-1, 2).to(dtype)
    for output in (numbers, numbers.flip(0), torch.full_like(numbers, -1.0)):
        gradient = numbers.clone()
        expected = through(numbers, output, slope)
        bias_gradient_(gradient, output, slope)
        assert torch.equal(gradient.nan_to_num(nan=3.0), expected.nan_to_num(nan=3.0))
        assert torch.equal(gradient.isnan(), expected.isnan())


@each_dtype
@pytest.mark.parametrize("slope", SLOPES)
def test_what_is_not_finite_comes_through(slope: float, dtype: torch.dtype) -> None:
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0, -1.0])
    gradient, output = (part.to(dtype) for part in torch.meshgrid(odd, odd, indexing="ij"))
    gradient = gradient.contiguous()
    output = output.contiguous()
    expected = through(gradient, output, slope)
    bias = bias_gradient_(gradient, output, slope)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(bias, expected.sum(0), rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@each_dtype
@pytest.mark.usefixtures("threads")
def test_any_number_of_threads_sums_to_the_same_bits(dtype: torch.dtype) -> None:
    gradient, output = torch.randn(2000, 203).to(dtype), torch.randn(2000, 203).to(dtype)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(bias_gradient_(gradient.clone(), output, 0.2))
    assert all(torch.equal(result, results[0]) for result in results)


def test_wrong_arguments_are_errors() -> None:
    x = torch.zeros(4, 6)
    for gradient, output, message in (
        (x[0], None, "expected a dense gradient"),
        (x.t(), None, "expected a dense gradient"),
        (x.double(), None, "expected fp32 or bf16"),
        (x, x[:3], "expected an output of the gradient's shape and dtype, dense"),
        (x, x.bfloat16(), "expected an output of the gradient's shape and dtype, dense"),
        (x, torch.zeros(6, 4).t(), "expected an output of the gradient's shape and dtype, dense"),
    ):
        with pytest.raises(RuntimeError, match=message):
            bias_gradient_(gradient, output, 0.2)
