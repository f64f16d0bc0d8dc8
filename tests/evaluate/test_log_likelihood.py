"""The importance-sampled likelihood: against the truth where it is known, the objective, and torch's distributions."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal

import fastvae
from fastvae.data import load
from fastvae.evaluate.log_likelihood import NllEstimator, estimate_nll
from fastvae.models import mlp_vae, objectives
from fastvae.nn import Gaussian
from fastvae.ops import Noise
from fastvae.train.step.loss import NLL_STREAM

DATA, LATENT, VARIANCE = 5, 2, 0.3


def estimate(model, images, samples, seed=3, **options):
    return torch.cat(list(estimate_nll(model, images, samples, seed, **options)))


class Posterior(nn.Module):
    """The exact posterior of a decoder with orthogonal columns, its deviations times ``stretch``."""

    def __init__(self, decoder, stretch):
        super().__init__()
        self.decoder, self.stretch = decoder, stretch

    def forward(self, x):
        weight = self.decoder.weight
        variance = 1 / (1 + weight.square().sum(0) / VARIANCE)
        mu = (x - self.decoder.bias) @ weight / VARIANCE * variance
        return mu, (variance * self.stretch**2).log().expand_as(mu)


def linear_gaussian(stretch):
    """p(z) = N(0, I), p(x | z) = N(W z + b, 0.3 I), some x, and -log p(x) but for the constant that Gaussian drops."""
    decoder = nn.Linear(LATENT, DATA).double().requires_grad_(False)
    decoder.weight.copy_(torch.linalg.qr(torch.randn(DATA, LATENT).double()).Q * torch.tensor([1.5, 0.7]))
    x = torch.randn(6, DATA).double()
    covariance = decoder.weight @ decoder.weight.T + VARIANCE * torch.eye(DATA, dtype=torch.float64)
    truth = -MultivariateNormal(decoder.bias, covariance).log_prob(x)
    constant = DATA / 2 * math.log(2 * math.pi * VARIANCE)
    return fastvae.VAE(Posterior(decoder, stretch), decoder, Gaussian(VARIANCE)), x, truth - constant


@pytest.mark.parametrize("samples", [1, 2, 500])
def test_with_the_exact_posterior_every_sample_is_the_truth(samples):
    model, x, truth = linear_gaussian(stretch=1.0)
    torch.testing.assert_close(estimate(model, x, samples), truth, rtol=1e-12, atol=0)


def test_with_another_posterior_many_samples_find_the_truth():
    samples, stretch = 20_000, 1.5
    model, x, truth = linear_gaussian(stretch)
    # Of p / q for two normals of one mean: E[w^2] / E[w]^2 = c^2 / sqrt(2 c^2 - 1) a dimension.
    spread = (stretch**2 / math.sqrt(2 * stretch**2 - 1)) ** LATENT - 1
    assert ((estimate(model, x, samples) - truth).abs() <= 4.5 * math.sqrt(spread / samples)).all()
    assert (estimate(model, x, 1) - truth).abs().mean() > 0.1  # so that it was no matter of course


@pytest.fixture(scope="module")
def digits():
    torch.manual_seed(1)
    return mlp_vae((1, 8, 8), (16,), 3).double(), load("digits").test[:9]


def test_one_sample_is_the_negative_elbo_of_its_noise(digits):
    model, images = digits
    with torch.no_grad():
        mu, logvar = model.encode(images)
        eps = Noise(3, stream=NLL_STREAM).draw(tuple(mu.shape), torch.float64)
        posterior, prior = Normal(mu, (logvar / 2).exp()), Normal(torch.zeros_like(mu), 1)
        z = mu + (logvar / 2).exp() * eps
        pixels = Bernoulli(logits=model.decoder(z), validate_args=False).log_prob(images.double() / 255)
        elbo = pixels.flatten(1).sum(1) + (prior.log_prob(z) - posterior.log_prob(z)).sum(1)
    torch.testing.assert_close(estimate(model, images, 1), -elbo, rtol=1e-12, atol=0)


@pytest.mark.parametrize("samples", [1, 20])
def test_it_is_the_objectives_bound(digits, samples):
    model, images = digits
    noise = Noise(3, stream=NLL_STREAM)
    bound = objectives.importance_weighted(model, images, noise, samples=samples, reduction="none").bound
    torch.testing.assert_close(estimate(model, images, samples), bound, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rows", [1, 7, 45, 60, 10_000])
def test_the_rows_at_a_time_change_nothing_and_bound_the_decoder(digits, rows):
    model, images = digits
    seen = []
    handle = model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    few = estimate(model, images, 20, rows=rows)
    handle.remove()
    torch.testing.assert_close(few, estimate(model, images, 20), rtol=1e-12, atol=0)
    assert max(seen) <= rows
    assert sum(seen) == 20 * len(images)


def test_the_first_images_are_estimated_alike(digits):
    model, images = digits
    assert torch.equal(estimate(model, images[:4], 50), estimate(model, images, 50)[:4])
    assert not torch.equal(estimate(model, images, 50, seed=4), estimate(model, images, 50))


def test_in_expectation_more_samples_never_raise_it():
    model, images = mlp_vae((1, 8, 8), (16,), 8), load("digits").test[:]
    nn.init.normal_(model.decoder[0].weight)  # latents that matter, so that the samples differ
    values = [estimate(model, images, samples) for samples in (1, 4, 16, 64, 256)]
    for fewer, more in itertools.pairwise(values):
        fall = fewer - more
        assert fall.mean() > -4 * fall.std() / len(fall) ** 0.5
    assert (values[0] - values[-1]).mean() > 1


@pytest.mark.parametrize(("precision", "margin"), [("fp32", 1e-4), ("bf16", 0.5)])
@pytest.mark.parametrize("hidden", [(16,), (16, 24)])
def test_the_fused_last_layer_is_the_decoder_and_its_likelihood(precision, margin, hidden):
    torch.manual_seed(2)
    model, images = mlp_vae((1, 8, 8), hidden, 3), load("digits").test[:9]
    many = estimate(model, images, 50, precision=precision)
    some = estimate(model, images, 50, precision=precision, rows=20)
    exact = estimate(model.double(), images, 50)
    torch.testing.assert_close(many, exact, rtol=0, atol=margin)
    torch.testing.assert_close(some, exact, rtol=0, atol=margin)


def test_a_hook_on_the_decoder_sees_its_outputs():
    model, images = mlp_vae((1, 8, 8), (16,), 3), load("digits").test[:9]
    seen = []
    model.decoder.register_forward_hook(lambda *inputs: seen.append(inputs[-1].shape))
    estimate(model, images, 10)
    assert seen == [(90, 1, 8, 8)]


def test_bf16_keeps_the_last_layer_of_a_sharp_likelihood_in_fp32():
    model, images = mlp_vae((1, 8, 8), (16,), 3, likelihood=Gaussian(1e-6)), load("digits").test[:9]
    seen = []
    model.decoder[2].register_forward_hook(lambda *inputs: seen.append(inputs[-1].dtype))
    estimate(model, images, 10, precision="bf16")
    assert seen == [torch.float32]


def test_a_gpu_sees_as_many_samples_at_once_as_their_pictures_allow():
    estimator = NllEstimator(mlp_vae((1, 8, 8), (16,), 3).double(), 10, 0)
    digits, pictures = torch.zeros(3, 1, 28, 28), torch.zeros(3, 3, 256, 256)
    assert [estimator.rows(images) for images in (digits, pictures)] == [10_000] * 2
    estimator._device = torch.device("cuda")
    assert [estimator.rows(images) for images in (digits, pictures)] == [85_598, 341]
