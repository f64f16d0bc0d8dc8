"""SiLU of a group norm, and its gradient, against torch's own in fp64."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fastvae.ops import _library
from fastvae.ops.internal.group_norm_silu import group_norm_silu, group_norm_silu_backward

from ..support import error

# With the backend's name in theirs, the tests are among those that the sanitizers run.
pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["native"], indirect=True),
    pytest.mark.skipif(not _library.has_native(), reason="the C++ extension is not built: run `make setup`"),
]
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
EPS = 1e-5
# The last are more than a thread takes; 24 channels are repeated to a row, 130 are a row of their own.
LARGE = [(64, 24, 14, 14, 3), (9, 130, 7, 9, 2), (3, 32, 64, 64, 4), (1, 8, 128, 128, 1)]


def draw(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape).to(dtype, memory_format=torch.channels_last)


def assert_right(x: Tensor, groups: int) -> None:
    weight = torch.rand(x.shape[1]) + 0.5
    bias = torch.randn(x.shape[1])
    gradient = torch.randn_like(x)
    output, mean, rstd = group_norm_silu(x, weight, bias, groups, EPS)
    found = group_norm_silu_backward(gradient, x, mean, rstd, weight, bias, groups)
    inputs = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]
    exact = F.silu(torch.group_norm(inputs[0], groups, *inputs[1:], EPS))
    expected = torch.autograd.grad(exact, inputs, gradient.double())
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    rounding = 1e-5 if x.dtype == torch.float32 else 1e-2
    for ours, truth in zip((output, *found), (exact, *expected), strict=True):
        assert ours.shape == truth.shape
        if truth.numel():
            # The gradient of a group of one value is nothing but rounding.
            assert (ours - truth).abs().max() <= rounding * max(1.0, truth.abs().max().item())


@each_dtype
@given(
    st.integers(0, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99)
)
def test_every_shape(
    dtype: torch.dtype, images: int, groups: int, width: int, height: int, length: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x = draw(images, groups * width, height, length, dtype=dtype)
    assert_right(x, groups)


@each_dtype
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_ones(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    *sizes, groups = shape
    assert_right(draw(*sizes, dtype=dtype), groups)


@each_dtype
def test_a_mean_far_from_zero_leaves_the_digits(dtype: torch.dtype) -> None:
    """The formula E[x^2] - E[x]^2 would lose all digits in fp32."""
    x = (draw(2, 16, 9, 9, dtype=torch.float32) + 4096).to(dtype)
    output, _, rstd = group_norm_silu(x, torch.ones(16), torch.zeros(16), 2, EPS)
    exact = F.silu(F.group_norm(x.double(), 2, eps=EPS))
    assert error(rstd, 1 / (x.double().reshape(2, 2, -1).var(-1, correction=0) + EPS).sqrt()) < 1e-5
    torch.testing.assert_close(output.double(), exact, rtol=1e-2, atol=2e-3 if dtype == torch.float32 else 2e-2)


@each_dtype
def test_what_is_not_finite_stays_in_its_group(dtype: torch.dtype) -> None:
    x = draw(2, 8, 3, 3, dtype=dtype)
    x[0, 5, 1, 1] = torch.nan
    output, mean, rstd = group_norm_silu(x, torch.ones(8), torch.zeros(8), 2, EPS)
    bad = torch.zeros(2, 8, dtype=torch.bool)
    bad[0, 4:] = True
    assert torch.equal(output.isnan().flatten(2).all(-1), bad)
    assert torch.equal(output.isnan().flatten(2).any(-1), bad)
    of_x, of_weight, of_bias = group_norm_silu_backward(
        torch.ones_like(x), x, mean, rstd, torch.ones(8), torch.zeros(8), 2
    )
    assert torch.equal(of_x.isnan().flatten(2).all(-1), bad)
    assert torch.equal(of_weight.isnan(), bad[0])
    assert torch.equal(of_bias.isnan(), bad[0])


@each_dtype
def test_far_out_it_is_zero_or_what_comes_in(dtype: torch.dtype) -> None:
    x = draw(1, 8, 2, 2, dtype=dtype)
    bias = torch.tensor([1e4, -1e4] * 4)
    output, mean, rstd = group_norm_silu(x, torch.zeros(8), bias, 1, EPS)
    assert torch.equal(output, bias.clamp(min=0).to(dtype).view(1, 8, 1, 1).expand_as(output))
    _, _, of_bias = group_norm_silu_backward(torch.ones_like(x), x, mean, rstd, torch.zeros(8), bias, 1)
    assert torch.equal(of_bias, (bias > 0) * 4.0)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@each_dtype
@pytest.mark.usefixtures("threads")
def test_threads_and_other_images_change_no_bit(dtype: torch.dtype) -> None:
    x, gradient = draw(40, 24, 9, 9, dtype=dtype), draw(40, 24, 9, 9, dtype=dtype)
    weight = torch.rand(24)
    bias = torch.randn(24)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        output, mean, rstd = group_norm_silu(x, weight, bias, 3, EPS)
        results.append((output, *group_norm_silu_backward(gradient, x, mean, rstd, weight, bias, 3)))
    for result in results[1:]:
        assert all(torch.equal(left, right) for left, right in zip(result, results[0], strict=True))
    output, mean, rstd = group_norm_silu(x[7:9], weight, bias, 3, EPS)
    of_x, _, _ = group_norm_silu_backward(gradient[7:9], x[7:9], mean, rstd, weight, bias, 3)
    assert torch.equal(output, results[0][0][7:9])
    assert torch.equal(of_x, results[0][1][7:9])


def test_wrong_arguments_are_errors() -> None:
    x = draw(2, 8, 3, 3, dtype=torch.float32)
    ones = torch.ones(8)
    for arguments, message in (
        ((x[0], ones, ones, 2, EPS), r"expected images \(N, C, H, W\)"),
        ((x.contiguous(), ones, ones, 2, EPS), "expected images in channels_last"),
        ((x.double(), ones, ones, 2, EPS), "expected fp32 or bf16"),
        ((x, ones, ones, 3, EPS), "expected groups that divide the channels"),
        ((x, ones, ones, 0, EPS), "expected groups that divide the channels"),
        ((x, ones[:7], ones, 2, EPS), "of one value a channel"),
        ((x, ones, ones.bfloat16(), 2, EPS), "in fp32"),
    ):
        with pytest.raises(RuntimeError, match=message):
            group_norm_silu(*arguments)
    _, mean, rstd = group_norm_silu(x, ones, ones, 2, EPS)
    for arguments, message in (
        ((x[:1], x, mean, rstd, ones, ones, 2), "gradient of the images' shape"),
        ((x.bfloat16(), x, mean, rstd, ones, ones, 2), "gradient of the images' shape and dtype"),
        ((x.contiguous(), x, mean, rstd, ones, ones, 2), "channels_last"),
        ((x, x, mean[:1], rstd, ones, ones, 2), "expected statistics"),
        ((x, x, mean, rstd.double(), ones, ones, 2), "expected statistics"),
    ):
        with pytest.raises(RuntimeError, match=message):
            group_norm_silu_backward(*arguments)
