"""Accumulation and clipping: the same step in parts, and a bounded one."""

from functools import partial

import pytest
import torch

from fastvae.data import ResidentLoader, load
from fastvae.models import build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.optim import build as optimizer
from fastvae.train.optim.adam import Adam
from fastvae.train.optim.flat_gradients import GradientMatcher

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


def trained(count=3, batch_size=50, **settings):
    """An engine after some steps, the last of them of a smaller batch."""
    settings = {"precision": "fp64", "execution": "traced", "latent_dim": 3, "optimizer": "sgd", "lr": 1e-4} | settings
    config = resolve(TrainConfig(batch_size=batch_size, **settings))
    torch.manual_seed(1)
    engine = Engine(build(config.recipe, (1, 8, 8), 3), config, CPU)
    loader = ResidentLoader(load("digits").train[: count * batch_size - 7], batch_size=batch_size, seed=0)
    for batch in loader:
        engine.train_step(batch)
    return engine


def vector(engine):
    return torch.nn.utils.parameters_to_vector(engine.model.parameters()).detach()


@pytest.mark.parametrize("execution", ["eager", "traced"])
@pytest.mark.parametrize("parts", [2, 3, pytest.param(50, marks=pytest.mark.slow)])
def test_the_parts_of_a_batch_are_its_step(parts, execution):
    whole, split = trained(execution=execution), trained(execution=execution, accumulate=parts)
    # Rounding of sums in another order.
    torch.testing.assert_close(vector(split), vector(whole), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(split.sums, whole.sums, rtol=1e-12, atol=0)


def test_more_parts_than_the_last_batch_has_rows():
    settings = {"batch_size": 8, "preset": "gaussian"}  # the last batch has one row, and its own weight
    torch.testing.assert_close(
        vector(trained(**settings, accumulate=5)), vector(trained(**settings)), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("norm", [0.5, 1e9])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_clipping_is_torchs(norm, accumulate):
    engine = trained(count=1, clip_norm=norm, accumulate=accumulate, lr=1.0)
    plain = trained(count=1, accumulate=2, lr=1.0)  # grads in one buffer, not clipped
    total = torch.nn.utils.clip_grad_norm_(plain.model.parameters(), norm).item()
    assert 0.5 < total < 1e9
    for own, other in zip(engine.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-12, atol=1e-12)


def test_a_clipped_step_of_sgd_is_no_longer_than_the_norm():
    torch.manual_seed(1)
    before = torch.nn.utils.parameters_to_vector(build(TrainConfig().recipe, (1, 8, 8), 3).double().parameters())
    step = (vector(trained(count=1, clip_norm=0.25, lr=1.0)) - before.detach()).norm()
    # The weights were drawn in fp32, so the step is the only difference; 1e-6 is torch's own, against a norm of 0.
    assert step.item() == pytest.approx(0.25, rel=1e-6)


def test_the_loss_scale_is_taken_off_before_clipping(monkeypatch):
    # torch's own first scale overflows, and the step is left out.
    monkeypatch.setattr("torch.amp.GradScaler", partial(torch.amp.GradScaler, init_scale=64.0))
    scaled = trained(count=1, precision="fp16", clip_norm=0.25, lr=1.0)
    torch.manual_seed(1)
    before = torch.nn.utils.parameters_to_vector(build(TrainConfig().recipe, (1, 8, 8), 3).parameters())
    assert (vector(scaled) - before.detach()).norm().item() == pytest.approx(0.25, rel=1e-4)  # fp32 sums


GRADIENTS = {
    "einsum's": lambda w: torch.einsum("bi,oi->bo", torch.ones(6, 1), w).sum(),  # strides (1, 6) for a weight (8, 1)
    "of a sum": lambda w: w.sum(),  # strides 0
    "of a product": lambda w: torch.bmm(w.t()[None], torch.ones(1, 8, 3)).sum(),
    "bf16": lambda w: w.bfloat16().square().sum(),
    "its own": lambda w: w.square().sum(),
}


@pytest.mark.parametrize("weight", [torch.randn(8, 1), torch.randn(1, 8).t(), torch.randn(8, 5), torch.randn(5, 8).t()])
@pytest.mark.parametrize("loss", GRADIENTS.values(), ids=GRADIENTS)
def test_gradients_are_laid_out_as_their_weights(weight, loss):
    """A GPU's fused optimisers refuse others."""
    low = weight.bfloat16() if loss is GRADIENTS["bf16"] else weight
    (gradient,) = torch.autograd.grad(loss(leaf := low.clone().requires_grad_()), leaf)
    fit = GradientMatcher([weight])
    for _ in range(2):
        (laid_out,) = fit([gradient])
        assert (laid_out.dtype, laid_out.stride()) == (weight.dtype, weight.stride())
        assert torch.equal(laid_out, gradient.to(weight.dtype))
    if gradient.stride() == weight.stride() and gradient.dtype == weight.dtype:
        assert laid_out is gradient  # nothing is copied


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}], ids=["as they come", "at once"])
def test_an_engine_gives_its_optimiser_gradients_as_the_weights_lie(options, monkeypatch):
    monkeypatch.setattr(optimizer, "_is_on_gpu", lambda weight: True)  # torch's optimiser, as on a GPU
    config = resolve(TrainConfig(precision="fp32", execution="eager", **options))
    torch.manual_seed(1)
    model = build(config.recipe, (1, 8, 8), 3)
    layer = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    layer.weight = torch.nn.Parameter(layer.weight.detach().t().contiguous().t())
    engine = Engine(model, config, CPU)
    assert not isinstance(engine.optimizer, Adam)
    seen = []
    engine.optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.stride() for p in model.parameters()))
    engine.train_step(next(iter(ResidentLoader(load("digits").train[:50], batch_size=50, seed=0))))
    assert seen == [parameter.stride() for parameter in model.parameters()]
