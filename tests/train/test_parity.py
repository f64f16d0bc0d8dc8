"""The fused trainer against the reference's eager loop: same weights, batches and noise, step by step."""

import pytest
import torch

from fastvae import reference
from fastvae.data import ResidentLoader, load
from fastvae.models import PRESETS, build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.engine import Engine, Terms
from fastvae.train.world import World

STEPS = 100
CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


def images():
    """300 of the digits: they divide evenly into no preset's batches, so some batches are smaller."""
    return load("digits").train[:300]


def batches(data, batch_size):
    loader = ResidentLoader(data, batch_size=batch_size, seed=3)
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def fused_losses(config, data):
    torch.manual_seed(config.seed)
    engine = Engine(build(config.recipe, data.shape[1:]), config, config.recipe, CPU)
    for _, batch in zip(range(STEPS), batches(data, config.batch_size), strict=False):
        engine.sums.zero_()
        engine.train_step(batch)
        yield Terms.of(engine.sums, batch.rows, config.beta)
    yield engine.model


def reference_losses(config, data, dtype):
    recipe = config.recipe
    torch.manual_seed(config.seed)
    model = build(recipe, data.shape[1:]).to(dtype)
    optimizers = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
    optimizer = optimizers[recipe.optimizer](model.parameters(), lr=config.lr, **recipe.optimizer_options)
    taken = (batch.images for _, batch in zip(range(STEPS), batches(data, config.batch_size), strict=False))
    yield from reference.train(
        model.encode,
        model.decoder,
        optimizer,
        taken,
        seed=config.seed,
        likelihood=recipe.likelihood,
        beta=config.beta,
        reduction=recipe.reduction,
        loss_weight=recipe.loss_weight,
    )
    yield model


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp64", 1e-9), ("fp32", 1e-5)])
def test_every_step_of_the_fused_trainer_is_the_references(preset, precision, tolerance):
    config = resolve(TrainConfig(preset=preset, precision=precision, seed=7, beta=1.5))
    data = images()
    dtype = torch.float64 if precision == "fp64" else torch.float32
    *fused, fused_model = fused_losses(config, data)
    *truth, truth_model = reference_losses(config, data, dtype)
    assert len(fused) == len(truth) == STEPS
    for step, (ours, theirs) in enumerate(zip(fused, truth, strict=True)):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=0), f"step {step}"
    assert fused[-1].loss < fused[0].loss - 5  # it learned something, so the steps were not idle
    for name, tensor in truth_model.state_dict().items():
        torch.testing.assert_close(fused_model.state_dict()[name], tensor, rtol=tolerance, atol=tolerance)
