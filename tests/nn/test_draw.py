"""Pixels drawn from each likelihood have the frequencies that its nll gives them, and the mean that it says."""

import math
from itertools import pairwise

import pytest
import torch

import fastvae
from fastvae.models import PRESETS, build
from fastvae.nn import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    GaussianHead,
    Laplace,
    LearnedGaussian,
    Likelihood,
    OptimalGaussian,
)
from fastvae.nn.draw import draw
from fastvae.ops import Noise

COUNT = 40_000
BOUND = 4.5  # standard errors


def drawn(likelihood, parameters, pixels=1):
    """Draw COUNT times from an output that is the same for all, (len(parameters), pixels) of channels and places."""
    output = torch.tensor(parameters, dtype=torch.float64).view(1, -1, pixels).expand(COUNT, -1, -1)
    return draw(likelihood, output, Noise(3, 1)), output


def probabilities(likelihood, output, values):
    """Return exp(-nll) of one pixel for each of the values."""
    targets = values.view(-1, 1, 1)
    return torch.exp(-likelihood.nll(output[: len(values)].contiguous(), targets, reduction="none"))


def check_frequencies(sample, levels, expected):
    assert expected.sum().item() == pytest.approx(1, abs=1e-6)
    counts = torch.stack([(sample == level).sum() for level in levels])
    assert counts.sum() == len(sample)
    error = (len(sample) * expected * (1 - expected)).sqrt() + 1
    assert ((counts - len(sample) * expected).abs() < BOUND * error).all()


@pytest.mark.parametrize("logit", [-2.0, 0.3, 40.0])
def test_bernoulli(logit):
    sample, output = drawn(Bernoulli(), [logit])
    check_frequencies(sample.flatten(), [0, 1], probabilities(Bernoulli(), output, torch.tensor([0.0, 1.0]).double()))


LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("likelihood", "parameters"),
    [
        (DiscretizedLogistic(), [0.4, -3.0]),
        (DiscretizedLogistic(), [1.1, -2.0]),  # much of it beyond the last bin
        (DiscretizedLogisticMixture(2), [0.3, -0.5, 0.2, 0.9, -4.0, -12.0]),  # the second narrower than the floor
        (Categorical(256), torch.linspace(-2, 2, 256).sin().mul(3).tolist()),
    ],
    ids=["logistic", "logistic beyond", "mixture", "categorical"],
)
def test_levels(likelihood, parameters):
    sample, output = drawn(likelihood, parameters)
    check_frequencies(sample.flatten(), LEVELS.double() / 255, probabilities(likelihood, output, LEVELS))


def test_the_channels_of_a_mixture_are_coupled_as_in_its_nll():
    """Red and green take two and three levels or so, and all pairs are counted; blue hangs on both."""
    likelihood = DiscretizedLogisticMixture(2)
    planes = torch.zeros(10, 2, dtype=torch.float64)
    planes[0] = torch.tensor([0.5, -0.5])
    planes[1:4] = torch.tensor([[0.2, 0.8], [0.5, 0.4], [0.3, 0.6]])
    planes[4:7] = -6.5
    planes[7:10] = torch.tensor([[0.5, -0.5], [1.0, 0.3], [-2.0, 0.1]])
    sample, output = drawn(likelihood, planes.flatten().tolist())
    levels, counts = (sample.view(COUNT, 3) * 255).round().to(torch.uint8).unique(dim=0, return_counts=True)
    p = torch.exp(-likelihood.nll(output[: len(levels)].contiguous(), levels.unsqueeze(2), reduction="none"))
    assert p.sum().item() == pytest.approx(1, abs=0.02)
    expected = COUNT * p
    often = expected > 20
    assert often.sum() > 50
    assert ((counts - expected)[often].abs() < BOUND * expected[often].sqrt()).all()


@pytest.mark.parametrize(
    ("likelihood", "parameters", "mean", "deviation"),
    [
        (Gaussian(0.04), [0.3], 0.3, 0.2),
        (LearnedGaussian(-2.0), [0.3], 0.3, math.exp(-1)),
        (GaussianHead(), [0.3, -3.0], 0.3, math.exp(-1.5)),
        (Laplace(0.1), [0.3], 0.3, 0.1 * 2**0.5),
    ],
)
def test_real_pixels_have_mean_deviation_and_density(likelihood, parameters, mean, deviation):
    sample, output = drawn(likelihood, parameters)
    assert sample.mean().item() == pytest.approx(mean, abs=BOUND * deviation / COUNT**0.5)
    assert sample.std().item() == pytest.approx(deviation, rel=0.03)
    # Shares of the draws in bins, against the density relative to that of the middle: constants may be left out.
    edges = torch.linspace(-2, 2, 9, dtype=torch.float64) * deviation + mean
    fine = torch.linspace(-12, 12, 24001, dtype=torch.float64) * deviation + mean
    density = torch.exp(
        -likelihood.nll(output[:1].expand(len(fine), -1, -1).contiguous(), fine.view(-1, 1, 1), reduction="none")
    )
    density /= density.sum()
    for low, high in pairwise(edges):
        expected = density[(fine >= low) & (fine < high)].sum().item()
        share = ((sample >= low) & (sample < high)).double().mean().item()
        assert share == pytest.approx(expected, abs=BOUND * (expected / COUNT) ** 0.5 + 1e-3)


@pytest.mark.parametrize("logit", [-400.0, -3.0, 0.0, 1e-7, 0.05, 5.0, 400.0])
def test_continuous_bernoulli(logit):
    sample, output = drawn(ContinuousBernoulli(), [logit])
    assert 0 <= sample.min() <= sample.max() <= 1
    bins = 10
    fine = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    density = torch.exp(
        -ContinuousBernoulli().nll(
            output[:1].expand(len(fine), -1, -1).contiguous(), fine.view(-1, 1, 1), reduction="none"
        )
    )
    expected = density.view(bins, -1).mean(1) / bins
    counts = torch.histc(sample.flatten(), bins, 0, 1)
    error = (COUNT * expected).sqrt() + 1
    assert ((counts - COUNT * expected).abs() < BOUND * error + 1e-4 * COUNT).all()


def test_the_same_key_draws_the_same_pixels_for_any_split():
    output = torch.randn(6, 30, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = draw(DiscretizedLogisticMixture(3), output, Noise(1))
    parts = [draw(DiscretizedLogisticMixture(3), output[a:b], Noise(1, row_offset=a)) for a, b in ((0, 2), (2, 6))]
    assert torch.equal(whole, torch.cat(parts))
    assert whole.dtype == torch.float32
    assert not torch.equal(whole, draw(DiscretizedLogisticMixture(3), output, Noise(2)))
    torch.manual_seed(5)
    first = draw(Bernoulli(), output)
    assert not torch.equal(first, draw(Bernoulli(), output))
    torch.manual_seed(5)
    assert torch.equal(first, draw(Bernoulli(), output))


class Own(Likelihood):
    pass


@pytest.mark.parametrize("likelihood", [OptimalGaussian(), Own()])
def test_what_cannot_be_drawn_is_said(likelihood):
    with pytest.raises(TypeError, match=f"cannot be drawn from {type(likelihood).__name__}: use its mean"):
        draw(likelihood, torch.zeros(1, 2))


@pytest.mark.parametrize("name", ["classic", "gaussian", "conv64", "ladder"])
def test_every_network_draws_beside_its_means(name):
    torch.manual_seed(0)
    shape = (1, 8, 8) if PRESETS[name].network == "mlp" else (3, 32, 32)
    model = build(PRESETS[name], shape, 4, None if PRESETS[name].network == "mlp" else 8)
    means = model.sample(200, Noise(0))
    draws = model.sample(200, Noise(0), draw=True)
    assert draws.shape == means.shape == (200, *shape)
    assert torch.equal(draws, model.sample(200, Noise(0), draw=True))
    assert not torch.equal(draws, means)
    if name in ("classic", "gaussian"):
        error = (draws - means).mean().item()
        assert abs(error) < BOUND / means.numel() ** 0.5


def test_pixels_and_latents_come_from_streams_of_their_own():
    model = fastvae.VAE(torch.nn.Identity(), torch.nn.Identity(), Gaussian(), latent_shape=4)
    model.register_parameter("weight", torch.nn.Parameter(torch.zeros(1)))
    z = model.sample(5000, Noise(0))
    eps = model.sample(5000, Noise(0), draw=True) - z
    assert abs((z * eps).mean().item()) < BOUND / 20_000**0.5
