"""One evaluation, for training and for a saved run."""

import pytest
import torch

from fastvae.data import ResidentLoader, load
from fastvae.models import PRESETS, build
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
