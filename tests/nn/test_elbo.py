"""The loss modules against the reference."""

import pytest
import torch

from fastvae import reference
from fastvae.nn import Bernoulli, ELBOLoss, Gaussian


@pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])
@pytest.mark.parametrize(("likelihood", "formula"), [("bernoulli", "bernoulli_nll"), ("gaussian", "gaussian_nll")])
def test_elbo_loss_is_nll_plus_beta_kl(likelihood, formula, reduction):
    output = torch.randn(4, 1, 3, 3).double()
    target = torch.rand(4, 1, 3, 3).double()
    mu, logvar = torch.randn(4, 5).double(), torch.randn(4, 5).double()
    leaves = [tensor.requires_grad_() for tensor in (output, mu, logvar)]
    loss = ELBOLoss(likelihood, beta=2.5, reduction=reduction)(output, target, mu, logvar)
    nll = getattr(reference, formula)(output, target, reduction=reduction)
    truth = nll + 2.5 * reference.gaussian_kl(mu, logvar, reduction=reduction)
    torch.testing.assert_close(loss, truth)
    ours, theirs = (torch.autograd.grad(value.sum(), leaves) for value in (loss, truth))
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_means_are_in_the_range_of_pixels():
    assert torch.equal(Bernoulli().mean(torch.tensor([0.0])), torch.tensor([0.5]))
    assert torch.equal(Gaussian().mean(torch.tensor([0.3])), torch.tensor([0.3]))


def test_the_variance_divides_the_squared_error():
    output = torch.randn(3, 4)
    target = torch.rand(3, 4)
    torch.testing.assert_close(Gaussian(0.1).nll(output, target), 10 * Gaussian().nll(output, target))
