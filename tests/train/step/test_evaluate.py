"""One evaluation, for training and for a saved run."""

import pytest
import torch
from torch import nn

from fastvae.data import ResidentLoader, load
from fastvae.models import PRESETS, VAE, build
from fastvae.nn import OptimalGaussian
from fastvae.ops import Noise
from fastvae.train.step.evaluate import evaluate
from fastvae.train.step.loss import EVAL_STREAM, StepLoss


@pytest.mark.parametrize("batch_size", [1000, 64, 7])
def test_the_sums_are_the_models_own_loss_for_any_batch_size(batch_size):
    torch.manual_seed(0)
    model = build(PRESETS["classic"], (1, 8, 8)).eval()
    images = load("digits").test[:100]
    whole = model.loss(images, Noise(3, 2, stream=EVAL_STREAM), reduction="sum")
    loader = ResidentLoader(images, batch_size=batch_size, seed=0, shuffle=False)
    seen = []
    sums, count = evaluate(
        StepLoss(model, "auto").eval(), loader, Noise(3, 2), visit=lambda batch: seen.append(batch.rows)
    )
    assert count == sum(seen) == 100
    torch.testing.assert_close(sums, torch.stack((whole.loss, whole.nll, whole.kl)).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("batch_size", [100, 64, 16, 1])
def test_the_optimal_variance_is_that_of_all_images(batch_size):
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
    model = VAE(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), decoder, "optimal_gaussian").eval()
    images = load("digits").test[:100]
    noise = Noise(3, 2, stream=EVAL_STREAM)
    output = model(images, noise).output
    variance = (output - images / 255).square().mean().double()
    nll = 100 * 32 * variance.log()
    loader = ResidentLoader(images, batch_size=batch_size, seed=0, shuffle=False)
    (loss, found, kl), count = evaluate(StepLoss(model, "auto").eval(), loader, Noise(3, 2))
    assert count == 100
    torch.testing.assert_close(found, nll, rtol=1e-6, atol=0)
    assert loss == found + kl
    constant = model.likelihood.left_out(100 * 64)
    truth = -torch.distributions.Normal(output.double(), variance.sqrt()).log_prob(images.double() / 255).sum()
    torch.testing.assert_close(found + constant, truth, rtol=1e-6, atol=0)


def test_a_rank_without_rows_adds_nothing():
    likelihood = OptimalGaussian()
    assert likelihood.to_sum(torch.tensor(torch.nan), 0) == 0
    nll = torch.tensor(-3.5, dtype=torch.float64)
    torch.testing.assert_close(likelihood.from_sum(likelihood.to_sum(nll, 12), 12), nll)
