"""Each likelihood by its name: its nll is its operator's, its mean the mean of its distribution."""

import math

import pytest
import torch
from torch.distributions import ContinuousBernoulli, Laplace, Normal

from fastvae import nn, ops, reference
from fastvae.nn import as_likelihood
from fastvae.nn.names import _NAMES

PIXELS = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
OUTPUT = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
PACKED = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
FIRST, SECOND = PACKED.chunk(2, 1)
ZERO = torch.zeros((), dtype=torch.float64)
EXPECTED = {
    "bernoulli": (OUTPUT, reference.bernoulli_nll, (OUTPUT,)),
    "continuous_bernoulli": (OUTPUT, reference.continuous_bernoulli_nll, (OUTPUT,)),
    "gaussian": (OUTPUT, reference.gaussian_nll, (OUTPUT,)),
    "learned_gaussian": (OUTPUT, reference.gaussian_logvar_nll, (OUTPUT, ZERO)),
    "optimal_gaussian": (OUTPUT, reference.optimal_gaussian_nll, (OUTPUT,)),
    "gaussian_head": (PACKED, reference.gaussian_logvar_nll, (FIRST, SECOND)),
    "laplace": (OUTPUT, reference.laplace_nll, (OUTPUT,)),
    "discretized_logistic": (PACKED, reference.discretized_logistic_nll, (FIRST, SECOND)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_nll_and_shape_of_the_mean(name):
    output, formula, predictions = EXPECTED[name]
    likelihood = as_likelihood(name)
    truth = formula(*predictions, PIXELS, reduction="sum", weight=0.5)
    torch.testing.assert_close(likelihood.nll(output, PIXELS, reduction="sum", weight=0.5), truth)
    assert likelihood.mean(output).shape == PIXELS.shape


DENSITIES = {
    "gaussian": lambda: Normal(OUTPUT, 1.0),
    "learned_gaussian": lambda: Normal(OUTPUT, 1.0),
    "gaussian_head": lambda: Normal(FIRST, (SECOND / 2).exp()),
    "laplace": lambda: Laplace(OUTPUT, 1.0),
    "continuous_bernoulli": lambda: ContinuousBernoulli(logits=OUTPUT),
    "optimal_gaussian": lambda: Normal(OUTPUT, (OUTPUT - PIXELS / 255).square().mean().sqrt()),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_the_nll_and_what_it_leaves_out_are_the_log_density(name):
    likelihood = as_likelihood(name)
    density = DENSITIES[name]()
    nll = likelihood.nll(PACKED if name == "gaussian_head" else OUTPUT, PIXELS)
    truth = -density.log_prob(PIXELS.double() / 255).sum() / len(PIXELS)
    torch.testing.assert_close(nll + likelihood.left_out(75), truth, rtol=1e-5, atol=0)


def test_a_constant_has_the_variance_or_the_scale():
    assert nn.Gaussian().left_out(784) == pytest.approx(720.4478, abs=1e-4)
    assert nn.Gaussian(0.25).left_out(10) == pytest.approx(5 * math.log(math.pi / 2))
    assert nn.Laplace(0.5).left_out(10) == 0


@pytest.mark.parametrize("name", _NAMES)
def test_only_two_likelihoods_are_objected_to(name):
    likelihood = as_likelihood(name)
    white = torch.tensor([[0, 255]], dtype=torch.uint8)
    for pixels in (white, white.float() / 255, white.bool()):
        assert (likelihood.objection(pixels) is None) == (name != "optimal_gaussian")
    assert (likelihood.objection(PIXELS) is None) == (name not in ("bernoulli", "optimal_gaussian"))
    assert (likelihood.objection(PIXELS / 255) is None) == (name not in ("bernoulli", "optimal_gaussian"))


def test_an_unknown_name():
    with pytest.raises(ValueError, match=r"must be one of 'bernoulli', .* or a fastvae.nn.Likelihood, not 'beta'"):
        as_likelihood("beta")


def test_an_output_that_cannot_be_halved():
    with pytest.raises(ValueError, match=r"GaussianHead needs an output with an even dimension 1, .* shape \(4, 3\)"):
        nn.GaussianHead().nll(torch.zeros(4, 3), torch.zeros(4, 3))


def test_the_mean_of_the_continuous_bernoulli_is_torchs():
    logits = torch.linspace(-6, 6, 49, dtype=torch.float64)
    expected = ContinuousBernoulli(logits=logits).mean
    torch.testing.assert_close(nn.ContinuousBernoulli().mean(logits), expected, rtol=1e-5, atol=1e-5)


def test_the_mean_of_the_continuous_bernoulli_is_exact_in_fp64():
    # 1 / (1 - e**-l) - 1 / l by mpmath, with 40 digits.
    exact = [
        *(0.5000000008333333, 0.5041664930658889, 0.508331111858176, 0.5166555661269948),
        *(0.5414858523252776, 0.5415023127074684, 0.7190623631579226),
    ]
    logits = torch.tensor([1e-8, 0.05, 0.09999, 0.2, 0.4999, 0.5001, 3.0], dtype=torch.float64)
    expected = torch.tensor(exact, dtype=torch.float64)
    mean = nn.ContinuousBernoulli().mean
    torch.testing.assert_close(mean(logits), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(mean(-logits), 1 - expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(mean(logits.float()).double(), expected, rtol=0, atol=2e-7)


def test_the_learned_variance_finds_the_error():
    likelihood = nn.LearnedGaussian()
    optimizer = torch.optim.Adam(likelihood.parameters(), 0.1)
    output = torch.zeros(64, 50)
    target = 0.2 * torch.randn(64, 50, generator=torch.Generator().manual_seed(1))
    for _ in range(200):
        optimizer.zero_grad()
        likelihood.nll(output, target).backward()
        optimizer.step()
    assert likelihood.logvar.exp().item() == pytest.approx(target.square().mean().item(), rel=1e-3)
    best = ops.optimal_gaussian_nll(output, target, full=True)
    torch.testing.assert_close(ops.gaussian_logvar_nll(output, likelihood.logvar, target, full=True), best)


@pytest.mark.parametrize(("channels", "planes"), [(1, 3), (3, 10)])
def test_mixture_of_one_nearly_certain_component(channels, planes):
    likelihood = nn.DiscretizedLogisticMixture(2)
    output = torch.zeros(3, 2 * planes, 4, dtype=torch.float64)
    output[:, 0] = 50.0  # of the two components, the first
    output[:, 2 : 2 + 2 * channels : 2] = 0.4
    output[:, 2 + 2 * channels : 2 + 4 * channels] = -6.0
    pixels = torch.full((3, channels, 4), 102, dtype=torch.uint8)  # 0.4 * 255
    expected = reference.discretized_logistic_mixture_nll(output, pixels, 2)
    torch.testing.assert_close(likelihood.nll(output, pixels), expected)
    assert likelihood.nll(output, pixels) < likelihood.nll(output, pixels + 20)
    torch.testing.assert_close(likelihood.mean(output), torch.full((3, channels, 4), 0.4, dtype=torch.float64))


def test_channels_of_a_mixture_that_are_neither_grey_nor_rgb():
    with pytest.raises(ValueError, match=r"needs 3 channels a component \(grey\) or 10 \(RGB\), not 4"):
        nn.DiscretizedLogisticMixture(2).mean(torch.zeros(1, 8, 2))


def test_categorical_levels_and_their_mean():
    likelihood = nn.Categorical(4)
    levels = torch.randint(0, 4, (5, 3, 2, 2), dtype=torch.uint8)
    logits = torch.nn.functional.one_hot(levels.long(), 4).movedim(-1, 1).double() * 60
    output = logits.flatten(1, 2)  # (5, 4 * 3, 2, 2): all channels of class 0 first
    assert likelihood.nll(output, levels) < 1e-9
    torch.testing.assert_close(likelihood.mean(output), levels.double() / 3)
