import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from fastvae import reference


def test_against_torch() -> None:
    mu, logvar = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    exact = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum((1, 2))
    torch.testing.assert_close(reference.gaussian_kl(mu, logvar, reduction="none"), exact)
    torch.testing.assert_close(reference.gaussian_kl(mu, logvar, reduction="sum"), exact.sum())
    torch.testing.assert_close(reference.gaussian_kl(mu, logvar), exact.mean())
    torch.testing.assert_close(reference.gaussian_kl(mu, logvar, weight=0.25), exact.mean() / 4)


def test_by_hand() -> None:
    # Variance 4, mean 3: (9 + 4 - 1 - log 4) / 2. And nothing from the prior itself.
    mu = torch.tensor([[3.0], [0.0]], dtype=torch.float64)
    logvar = torch.tensor([[math.log(4)], [0.0]], dtype=torch.float64)
    kl = reference.gaussian_kl(mu, logvar, reduction="none")
    assert kl.tolist() == pytest.approx([(12 - math.log(4)) / 2, 0.0], rel=1e-12)


def test_it_is_never_negative() -> None:
    logvar = torch.logspace(-8, 1, 500)
    logvar = torch.cat((logvar, -logvar))[:, None]
    assert (reference.gaussian_kl(torch.zeros_like(logvar), logvar, reduction="none") >= 0).all()
    assert (0.5 * (logvar.exp() - logvar - 1) < 0).any(), "else this test shows nothing"


def test_gradients_by_hand() -> None:
    mu = torch.tensor([[1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    logvar = torch.tensor([[0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    gradients = torch.autograd.grad(reference.gaussian_kl(mu, logvar, reduction="sum"), (mu, logvar))
    assert gradients[0].tolist() == [[1.0, -2.0]]
    assert gradients[1].flatten().tolist() == pytest.approx([0.0, 0.5 * math.expm1(1.0)], rel=1e-12)
