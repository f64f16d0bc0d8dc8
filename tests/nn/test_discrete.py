"""Likelihoods of discrete pixels: those whose nll is a code length, and the means of their distributions."""

import pytest
import torch

from fastvae import nn, ops

LEVELS = torch.arange(256, dtype=torch.float64) / 255


def probabilities(location, log_scale):
    """The 256 probabilities of discretised logistics (...), in a last dimension, by the definition."""
    edges = (LEVELS[1:] - 1 / 510 - location.unsqueeze(-1)) / log_scale.exp().unsqueeze(-1)
    return (
        torch.nn.functional.pad(edges.sigmoid(), (1, 1), value=0.0)
        .diff(dim=-1)
        .add(torch.nn.functional.one_hot(torch.tensor(255), 256))
    )


def logistics(*shape):
    """Locations in and outside [0, 1], and log-scales from narrower than a bin to wider than the range."""
    generator = torch.Generator().manual_seed(0)
    location, log_scale = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return 0.5 + 0.5 * location, -2.8 + 1.4 * log_scale


@pytest.mark.parametrize(
    ("likelihood", "is_code"),
    [
        (nn.Categorical(256), True),
        (nn.Categorical(), True),
        (nn.Categorical(255), False),
        (nn.Categorical(2), False),
        (nn.Categorical(300), False),
        (nn.DiscretizedLogistic(), True),
        (nn.DiscretizedLogisticMixture(3), True),
        (nn.Bernoulli(), False),
        (nn.Gaussian(), False),
        (nn.GaussianHead(), False),
        (nn.Laplace(), False),
        (nn.ContinuousBernoulli(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bits_are_of_256_values(likelihood, is_code):
    assert likelihood.is_code_length == is_code


def test_the_mean_of_a_category_is_its_level_over_the_highest():
    logits = torch.full((1, 5, 3), -1e4)
    logits[0, [0, 2, 4], [0, 1, 2]] = 0
    assert nn.Categorical(5).mean(logits).flatten().tolist() == [0, 0.5, 1]
    even = torch.zeros(1, 5, 1)
    assert nn.Categorical(5).mean(even).item() == pytest.approx(0.5)


def test_the_mean_of_a_mixture_is_by_its_shares():
    # Two narrow components of grey: shares 1 to 3, means 0.2 and 0.6.
    planes = torch.tensor([0.0, torch.tensor(3.0).log(), 0.2, 0.6, -7.0, -7.0])
    mean = nn.DiscretizedLogisticMixture(2).mean(planes.view(1, 6, 1, 1))
    assert mean.item() == pytest.approx(0.25 * 0.2 + 0.75 * 0.6)


def test_the_probabilities_of_this_file_are_those_of_the_operator():
    location, log_scale = logistics(5, 1)
    each = probabilities(location, log_scale)
    torch.testing.assert_close(each.sum(-1), torch.ones(5, 1, dtype=torch.float64))
    for level in (0, 7, 128, 255):
        target = torch.full((5, 1), level, dtype=torch.uint8)
        nll = ops.discretized_logistic_nll(location, log_scale, target, reduction="none")
        likely = each[:, 0, level] > 1e-9  # a difference of two numbers near 1 has no more digits
        torch.testing.assert_close(nll[likely].neg().exp(), each[likely, 0, level])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_mean_of_a_discretised_logistic_is_that_of_its_levels(dtype):
    location, log_scale = logistics(4, 3, 5, 6)
    mean = nn.DiscretizedLogistic().mean(torch.cat((location, log_scale), 1).to(dtype))
    expected = (probabilities(location, log_scale) * LEVELS).sum(-1)
    assert (expected - location.clamp(0, 1)).abs().max() > 0.2  # of which the location is a poor estimate
    torch.testing.assert_close(mean.double(), expected, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)
    assert mean.dtype == dtype
    assert nn.DiscretizedLogistic().mean(torch.tensor([[0.0], [-1.0]]).view(1, 2).half()).dtype == torch.float16


def test_the_mean_of_a_wide_logistic_at_black():
    # The location is 0.0. By the definition, with 30 digits of mpmath.
    assert nn.DiscretizedLogistic().mean(torch.tensor([[0.0, -1.0]]).double()).item() == pytest.approx(
        0.2314859934546906, abs=1e-12
    )


@pytest.mark.parametrize("log_scale", [-9.0, -200.0])
def test_the_mean_of_a_narrow_logistic_is_its_level(log_scale):
    output = torch.tensor([[-0.3, 0.0, 0.4, 1.0, 1.7, *[log_scale] * 5]])
    mean = nn.DiscretizedLogistic().mean(output.view(1, 2, 5))
    torch.testing.assert_close(mean, torch.tensor([[[0.0, 0.0, 0.4, 1.0, 1.0]]]))


def test_the_mean_of_a_grey_mixture_is_exact():
    location, log_scale = logistics(6, 4, 3)
    log_scale = log_scale.clamp(min=-7)
    shares = torch.randn(6, 4, 3, dtype=torch.float64)
    mean = nn.DiscretizedLogisticMixture(4).mean(torch.cat((shares, location, log_scale), 1))
    each = (probabilities(location, log_scale) * LEVELS).sum(-1)
    torch.testing.assert_close(mean, (shares.softmax(1) * each).sum(1, keepdim=True), rtol=0, atol=1e-12)


def exact_colours(location, log_scale, couplings):
    """The means of one component of red, green and blue, (3,) each argument, over all 256**3 values."""
    to_green, to_blue, from_green = couplings.tanh()
    centred = LEVELS - 0.5
    red = probabilities(location[0], log_scale[0])
    green = probabilities(location[1] + to_green * centred, log_scale[1].expand(256))
    both = red[:, None] * green
    at = location[2] + to_blue * centred[:, None] + from_green * centred
    above = (at.unsqueeze(-1) - (LEVELS[1:] - 1 / 510)) / log_scale[2].exp()  # of 256 x 256 pairs
    means = above.sigmoid().sum(-1) / 255
    return torch.stack(((red * LEVELS).sum(), (both * LEVELS).sum(), (both * means).sum()))


def test_the_mean_of_a_colour_mixture_is_nearly_exact():
    count = 3
    location, log_scale = logistics(count, 3)
    log_scale = log_scale.clamp(min=-7)
    couplings = 1.5 * torch.randn(count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    output = torch.cat((torch.zeros(count, 1), location, log_scale, couplings), 1).unsqueeze(2)
    mean = nn.DiscretizedLogisticMixture(1).mean(output).squeeze(2)
    exact = torch.stack([exact_colours(*each) for each in zip(location, log_scale, couplings, strict=True)])
    torch.testing.assert_close(mean[:, 0], exact[:, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(mean, exact, rtol=0, atol=0.0025)
    shares = torch.tensor([1.0, 0.5, -1.0]).double()
    planes = torch.cat((shares.unsqueeze(0), torch.cat((location, log_scale, couplings), 1).T))  # of one pixel
    mixed = nn.DiscretizedLogisticMixture(count).mean(planes.reshape(1, 10 * count, 1))
    torch.testing.assert_close(mixed[0, :, 0], shares.softmax(0) @ mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("likelihood", "planes"), [(nn.DiscretizedLogistic(), 6), (nn.DiscretizedLogisticMixture(2), 20)]
)
def test_the_mean_has_a_gradient_and_does_not_depend_on_the_number_of_pictures(likelihood, planes, monkeypatch):
    output = torch.randn(5, planes, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    output.requires_grad_()
    mean = likelihood.mean(output)
    with monkeypatch.context() as patch:
        patch.setattr("fastvae.nn._expected_level._NUMBERS_AT_ONCE", 2 * planes * 9)
        torch.testing.assert_close(likelihood.mean(output), mean, rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad(mean.sum(), output)
    step = 0.01 * torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    change = likelihood.mean((output + step).detach()).sum() - likelihood.mean((output - step).detach()).sum()
    assert change.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=0.05)
