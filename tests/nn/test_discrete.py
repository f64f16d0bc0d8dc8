"""Likelihoods of discrete pixels: those whose nll is a code length, and the means of their distributions."""

import pytest
import torch

from fastvae import nn


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
    # Two components of grey: shares 1 to 3, means 0.2 and 0.6.
    planes = torch.tensor([0.0, torch.tensor(3.0).log(), 0.2, 0.6, 0.0, 0.0])
    mean = nn.DiscretizedLogisticMixture(2).mean(planes.view(1, 6, 1, 1))
    assert mean.item() == pytest.approx(0.25 * 0.2 + 0.75 * 0.6)
