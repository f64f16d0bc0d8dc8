"""A preset's objective copies nothing from the host."""

import pytest
import torch

from fastvae.models import PRESETS, build
from fastvae.train.step.loss import StepLoss, StepScalars


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("binarize", [False, True])
def test_no_preset_copies_from_the_host(preset, binarize, backend, no_host_copies):
    """On a GPU that would wait for it in each step, and no graph could hold it."""
    recipe = PRESETS[preset]
    size = recipe.image_size or 8
    shape = (3 if recipe.likelihood == "mixture" else 1, size, size)
    model = build(recipe, shape, width=None if recipe.network == "mlp" else 8)
    if binarize and recipe.likelihood != "bernoulli":
        pytest.skip("only black-and-white pixels are drawn")
    images, state = torch.randint(0, 256, (2, *shape), dtype=torch.uint8), torch.tensor([3, 4])
    one = torch.ones(())
    objective = StepLoss(model, backend, binarize=binarize)
    with no_host_copies:
        loss, _ = objective(images, state, 0, 0, StepScalars(one, one, one))
        torch.autograd.grad(loss, [parameter for parameter in model.parameters() if parameter.requires_grad])
