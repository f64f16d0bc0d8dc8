import torch
from torch.distributions import Normal

from fastvae import reference


def test_against_torch() -> None:
    mean, logvar, target = torch.randn(3, 5, 3, 4, dtype=torch.float64)
    exact = -Normal(mean, torch.exp(0.5 * logvar)).log_prob(target).sum((1, 2))
    torch.testing.assert_close(reference.gaussian_logvar_nll(mean, logvar, target, full=True, reduction="none"), exact)
    shared = torch.tensor(-0.7, dtype=torch.float64)
    exact = -Normal(mean, torch.exp(0.5 * shared)).log_prob(target).sum((1, 2))
    torch.testing.assert_close(reference.gaussian_logvar_nll(mean, shared, target, full=True), exact.mean())
