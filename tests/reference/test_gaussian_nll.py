import math

import pytest
import torch
from torch.distributions import Normal

from fastvae import reference


@pytest.mark.parametrize("variance", [0.1, 1.0, 3.0])
def test_against_torch(variance: float) -> None:
    mean, target = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    exact = -Normal(mean, math.sqrt(variance)).log_prob(target).sum((1, 2))
    options = {"variance": variance, "full": True}
    torch.testing.assert_close(reference.gaussian_nll(mean, target, **options, reduction="none"), exact)
    torch.testing.assert_close(reference.gaussian_nll(mean, target, **options, reduction="sum"), exact.sum())
    torch.testing.assert_close(reference.gaussian_nll(mean, target, **options), exact.mean())
    module = torch.nn.GaussianNLLLoss(full=True, reduction="sum")
    expected = module(mean, target, torch.full_like(mean, variance))
    torch.testing.assert_close(reference.gaussian_nll(mean, target, **options, reduction="sum"), expected)


def test_by_hand() -> None:
    mean = torch.tensor([[1.0, 3.0], [0.5, 0.0]])
    target = torch.tensor([[0.0, 1.0], [0.5, 0.0]])
    assert reference.gaussian_nll(mean, target, reduction="none").tolist() == [2.5, 0.0]
    assert reference.gaussian_nll(mean, target, 0.5, reduction="none").tolist() == [5.0, 0.0]
    assert reference.gaussian_nll(mean, target, weight=2.0).item() == 2.5


def test_half_the_squared_error_is_what_it_is_without_the_constant() -> None:
    mean = torch.rand(4, 6, dtype=torch.float64)
    pixels = torch.randint(0, 256, (4, 6), dtype=torch.uint8)
    expected = 0.5 * torch.nn.functional.mse_loss(mean, pixels.double() / 255, reduction="sum")
    torch.testing.assert_close(reference.gaussian_nll(mean, pixels, reduction="sum"), expected)
