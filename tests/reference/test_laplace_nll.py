import pytest
import torch
from torch.distributions import Laplace

from fastvae import reference


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_against_torch(scale: float) -> None:
    location, target = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    exact = -Laplace(location, scale).log_prob(target).sum((1, 2))
    torch.testing.assert_close(reference.laplace_nll(location, target, scale, full=True, reduction="none"), exact)
    torch.testing.assert_close(reference.laplace_nll(location, target, scale, full=True), exact.mean())
