"""The estimate of the total correlation: its weights, and what it says of distributions whose own is known."""

import itertools
import math

import pytest
import torch

from fastvae.models.objectives.total_correlation import stratified_log_weights, stratified_total_correlation


def test_the_density_is_unbiased():
    """Over all orders of all batches that hold image 0, the mean is the mean over the data set, exactly."""
    densities, batch = torch.rand(6, dtype=torch.float64), 4  # of one z, under each image's posterior
    weights = stratified_log_weights(batch, len(densities), densities).exp()
    estimates = [
        (weights[0] * densities[[0, *others]]).sum() for others in itertools.permutations(range(1, 6), batch - 1)
    ]
    torch.testing.assert_close(torch.stack(estimates).mean(), densities.mean(), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("batch", "images"), [(2, 2), (2, 100), (7, 7), (64, 60_000)])
def test_every_row_of_weights_adds_up_to_one(batch, images):
    weights = stratified_log_weights(batch, images, torch.zeros((), dtype=torch.float64)).exp()
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[0]))
    torch.testing.assert_close(weights.diagonal(), torch.full_like(weights[0], 1 / images))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_posterior_for_all_is_a_product(dtype):
    mu, logvar = (torch.randn(1, 3, 2, 2, dtype=dtype).expand(16, -1, -1, -1) for _ in range(2))
    z = mu + torch.randn_like(mu) * torch.exp(logvar / 2)
    tc = stratified_total_correlation(z, mu, logvar, 1000)
    assert tc.shape == (16,)
    assert tc.dtype == dtype
    # A sum of 12 logarithms that are a few units each: rounding alone.
    assert tc.abs().max() < 200 * torch.finfo(dtype).eps


@pytest.mark.parametrize("correlation", [0.0, 0.5, -0.8])
def test_a_gaussian_aggregate_has_its_closed_form(correlation):
    """Means N(0, S - v I) and posteriors of variance v: q(z) is N(0, S), whose TC is -log det(S) / 2 for a unit S."""
    batch, variance = 2000, 0.15
    aggregate = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    of_means = torch.distributions.MultivariateNormal(torch.zeros(2).double(), aggregate - variance * torch.eye(2))
    mu = of_means.sample((batch,))
    logvar = torch.full_like(mu, math.log(variance))
    z = mu + torch.randn_like(mu) * variance**0.5
    tc = stratified_total_correlation(z, mu, logvar, dataset_size=60_000)
    expected = -0.5 * math.log(1 - correlation**2)  # 0, 0.14 and 0.51 nats
    # 4 standard errors of the mean over z, and the bias of a mixture of 2000 components in place of q(z): the log of a
    # mean over m of them, which overlap like (2 pi v) ** (2 / 2) of the plane, is off by the order of 1 / (m v).
    allowed = 4 * tc.std() / batch**0.5 + 1 / (batch * variance)
    assert abs(tc.mean() - expected) < allowed
    assert allowed < 0.1


def test_its_gradient_pulls_correlated_dimensions_apart():
    shared = torch.randn(256, 1, dtype=torch.float64)
    mu = shared.expand(-1, 2).clone().requires_grad_()
    logvar = torch.full_like(mu, -3.0)
    z = mu + torch.randn_like(mu) * torch.exp(logvar / 2)
    before = stratified_total_correlation(z, mu, logvar, 1000).mean()
    assert before > 0.5
    (gradient,) = torch.autograd.grad(before, mu)
    moved = (mu - 20 * gradient).detach()  # the gradient of a mean over 256 rows is small
    after = stratified_total_correlation(moved + (z - mu).detach(), moved, logvar, 1000).mean()
    assert after < 0.9 * before
