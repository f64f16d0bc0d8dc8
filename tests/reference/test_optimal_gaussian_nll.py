import torch

from fastvae import reference


def test_no_fixed_variance_does_better() -> None:
    mean, target = torch.randn(2, 6, 10, dtype=torch.float64)
    best = reference.optimal_gaussian_nll(mean, target, full=True)
    variance = (mean - target).square().mean().item()
    torch.testing.assert_close(reference.gaussian_nll(mean, target, variance, full=True), best)
    for other in (0.9 * variance, 1.1 * variance):
        assert reference.gaussian_nll(mean, target, other, full=True) > best
    torch.testing.assert_close(reference.optimal_gaussian_nll(mean, target, full=True, reduction="sum"), 6 * best)
