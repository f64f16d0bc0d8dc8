"""Targets as people have them: masks of bool, and floats that rounding has put a little outside of [0, 1]."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastvae import ops

MASK = torch.tensor([[True, False, True], [False, False, True]])
OUTPUT = torch.linspace(-2, 2, 6).view(2, 3)

PIXELS: list[Callable[..., Tensor]] = [
    ops.bernoulli_nll,
    ops.continuous_bernoulli_nll,
    ops.gaussian_nll,
    ops.laplace_nll,
    ops.optimal_gaussian_nll,
    lambda output, target, **options: ops.gaussian_logvar_nll(output, output.new_zeros(()), target, **options),
    lambda output, target, **options: ops.linear_bernoulli_nll(
        output, torch.eye(3).to(output), None, target, **options
    ),
    lambda output, target, **options: ops.linear_gaussian_nll(output, torch.eye(3).to(output), None, target, **options),
]


@pytest.mark.parametrize("loss", PIXELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_mask_is_zeros_and_ones(loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    for backend in ("reference", "auto"):
        output = OUTPUT.to(dtype)
        assert torch.equal(loss(output, MASK, backend=backend), loss(output, MASK.to(dtype), backend=backend))


def test_a_mask_is_black_and_white_to_discrete_likelihoods() -> None:
    black_and_white = MASK.to(torch.uint8) * 255
    for backend in ("reference", "auto"):
        assert torch.equal(
            ops.discretized_logistic_nll(OUTPUT, torch.zeros(2, 3), MASK, backend=backend),
            ops.discretized_logistic_nll(OUTPUT, torch.zeros(2, 3), black_and_white, backend=backend),
        )
        parameters = torch.randn(2, 6, 3)
        assert torch.equal(
            ops.discretized_logistic_mixture_nll(parameters, MASK[:, None], 2, backend=backend),
            ops.discretized_logistic_mixture_nll(parameters, black_and_white[:, None], 2, backend=backend),
        )
        logits = torch.randn(2, 2, 3)
        assert torch.equal(
            ops.categorical_nll(logits, MASK, backend=backend),
            ops.categorical_nll(logits, MASK.long(), backend=backend),
        )
        assert torch.equal(  # black and white stay so, whatever is drawn
            ops.bernoulli_nll(OUTPUT, MASK, binarize=ops.Noise(1), backend=backend),
            ops.bernoulli_nll(OUTPUT, black_and_white, backend=backend),
        )


@pytest.mark.parametrize("loss", [ops.bernoulli_nll, ops.continuous_bernoulli_nll, PIXELS[6]])
def test_what_rounding_put_outside_is_taken(loss: Callable[..., Tensor]) -> None:
    outside = torch.tensor([[1.0000001, 0.0, 1.000009], [-9e-6, 0.5, -0.0]])
    torch.testing.assert_close(loss(OUTPUT, outside), loss(OUTPUT, outside.clamp(0, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_two_units_in_the_last_place_of_a_narrow_type_are_rounding(dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    ops.bernoulli_nll(OUTPUT.to(dtype), torch.full((2, 3), 1 + 2 * eps, dtype=dtype))
    with pytest.raises(ValueError, match="target spans"):
        ops.bernoulli_nll(OUTPUT.to(dtype), torch.full((2, 3), 1 + 3 * eps, dtype=dtype))
