"""Steps that are not finite: found, told of, and kept from the weights and from the disk."""

import math

import pytest
import torch
from torch import nn

import fastvae
from fastvae.data import Dataset, ResidentLoader, load
from fastvae.train import TrainConfig, Trainer
from fastvae.train.checkpoint import checkpoint
from fastvae.train.config import resolve
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.step import nonfinite
from fastvae.utils.errors import InputError

BATCH, STEPS = 64, 20
BAD = 700  # the image that has a NaN
NAN = float("nan")


def own_model():
    """With the statistics of a BatchNorm, which a forward changes."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 6))
    decoder = nn.Sequential(nn.Linear(3, 64), nn.Unflatten(1, (1, 8, 8)))
    return fastvae.VAE(encoder, decoder, latent_shape=3, likelihood="gaussian")


def images(bad=BAD):
    pixels = load("digits").train[: STEPS * BATCH].float() / 255
    if bad is not None:
        pixels[bad, 0, 3, 3] = NAN
    return pixels


def bad_step(epoch=0):
    """The step of an epoch, counted from 1, that has the image."""
    loader = ResidentLoader(images(), batch_size=BATCH, seed=0)
    loader.set_epoch(epoch)
    return epoch * STEPS + next(n for n, batch in enumerate(loader, 1) if batch.images.isnan().any())


@pytest.fixture
def config(tmp_path):
    def make(out="run", **settings):
        defaults = {"batch_size": BATCH, "autotune": False, "device": "cpu", "epochs": 2, "precision": "fp32"}
        return TrainConfig(out=str(tmp_path / out), **(defaults | settings))

    return make


def fit(config, pixels=None):
    dataset = Dataset("mine", images() if pixels is None else pixels, images(None)[:100])
    return Trainer(own_model(), dataset, config).fit()


def saved(folder):
    return checkpoint.newest(folder / "checkpoints")[1]


def all_finite(found):
    return all(bool(t.isfinite().all()) for t in found.tensors.values())


@pytest.mark.parametrize("execution", ["eager", "traced"])
def test_the_run_stops_as_it_was_before(config, execution, tmp_path, capsys):
    settings = config(execution=execution, checkpoint_every=7)
    with pytest.raises(InputError) as caught:
        fit(settings)
    assert "go on with" not in capsys.readouterr().out  # the error says how
    step = bad_step()
    says = f"step {step} has a loss that is not finite (loss nan, nll nan, kl nan): try a smaller lr, clip_norm, or"
    assert str(caught.value).startswith(says)
    assert "on_nonfinite='skip'" in str(caught.value)
    assert "\n" not in str(caught.value)
    found = saved(tmp_path / "run")
    assert found.values["step"] == step - 1
    fit(config("before", execution=execution, max_steps=step - 1))
    before = saved(tmp_path / "before")
    for name in before.tensors.keys() - {"sums"}:
        assert torch.equal(found.tensors[name], before.tensors[name]), name
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        assert all_finite(checkpoint.load(path))


def test_a_stopped_run_goes_on_by_skipping(config, tmp_path, metrics):
    skipping = config("whole", on_nonfinite="skip", checkpoint_every=7)
    fit(skipping)
    with pytest.raises(InputError):
        fit(config("parts"))
    fit(config("parts", on_nonfinite="skip", resume=True))
    whole, parts = saved(tmp_path / "whole"), saved(tmp_path / "parts")
    for name, tensor in whole.tensors.items():
        assert torch.equal(parts.tensors[name], tensor), name
    for one, other in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "parts"), strict=True):
        assert {**one, "images_per_s": 0} == {**other, "images_per_s": 0}


@pytest.mark.parametrize("execution", ["eager", "traced"])
def test_skipping_goes_on_and_says_so(config, execution, metrics, capsys):
    outcome = fit(config(execution=execution, on_nonfinite="skip"))
    assert outcome.status == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    terms = "has a loss that is not finite (loss nan, nll nan, kl nan)"
    assert said == [f"epoch {e + 1}: skipped 1 of its steps; step {bad_step(e)} {terms}" for e in range(2)]
    assert all_finite(saved(outcome.folder))
    assert all(math.isfinite(line["loss"]) for line in metrics(outcome.folder))


SETTINGS = [
    {},
    {"ema": 0.9},
    {"clip_norm": 1.0},
    {"accumulate": 3},
    {"optimizer": "rmsprop"},
    {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}},
    {"precision": "bf16"},
    {"precision": "fp16"},
    {"schedule": "cosine"},
]


@pytest.mark.parametrize("at_hand", [True, False], ids=["looked at", "heeded"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_skipped_step_changes_nothing(config, settings, at_hand, monkeypatch):
    """As on the CPU, where the host looks; and as on a GPU, where it is the device that decides."""
    monkeypatch.setattr(nonfinite, "_is_on_host", lambda device: at_hand)
    resolved = resolve(config(execution="eager", on_nonfinite="skip", **settings))
    engine = Engine(own_model(), resolved, World(0, 0, 1, torch.device("cpu")))
    loader = ResidentLoader(images(), batch_size=BATCH, seed=0)
    for step, batch in enumerate(loader, 1):
        before = {id(tensor): tensor.clone() for tensor in engine.tensors()}
        engine.train_step(batch)
        watch = engine.nonfinite
        mine = {id(t) for t in (engine.sums, engine.counter.state, watch.found, watch.log, *engine._scalars)}
        assert step == 1 or {id(t) for t in engine.tensors()} <= before.keys()  # which it changes in place
        same = [torch.equal(t, before[id(t)]) for t in engine.tensors() if id(t) in before and id(t) not in mine]
        assert all(same) == (step == bad_step())
    assert engine.sums[3] == BATCH
    assert engine.sums.isfinite().all()
    assert engine.nonfinite.log[:2].tolist() == [1, bad_step() - 1]
    assert engine.counter.state[1] == STEPS


@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_even_the_first_step_may_be_bad(config, optimizer, at_hand, monkeypatch):
    monkeypatch.setattr(nonfinite, "_is_on_host", lambda device: at_hand)
    resolved = resolve(config(execution="traced", on_nonfinite="skip", optimizer=optimizer))
    first = next(iter(ResidentLoader(images(), batch_size=BATCH, seed=0)))
    engine = Engine(own_model(), resolved, World(0, 0, 1, torch.device("cpu")))
    before = {id(tensor): tensor.clone() for tensor in engine.model.parameters()}
    engine.train_step(first._replace(images=first.images * NAN))
    assert all(torch.equal(tensor, before[id(tensor)]) for tensor in engine.model.parameters())
    engine.train_step(first)
    assert all(tensor.isfinite().all() for tensor in engine.tensors() if tensor is not engine.nonfinite.log)
    assert not all(torch.equal(tensor, before[id(tensor)]) for tensor in engine.model.parameters())


def test_a_gradient_alone_can_be_bad(config):
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("inf")

    class Layer(nn.Module):
        def forward(self, x):
            return Steep.apply(x)

    model = own_model()
    model.decoder.append(Layer())
    with pytest.raises(InputError, match=r"step 1 has a gradient that is not finite \(loss \d"):
        Trainer(model, Dataset("mine", images(None), images(None)), config(execution="eager"), quiet=True).fit()


def test_weights_that_a_step_made_infinite_are_not_saved(config, tmp_path):
    settings = config(optimizer="sgd", lr=1e38, checkpoint_every=1)
    with pytest.raises(InputError, match=r"not finite") as caught:
        fit(settings, images(None))
    assert "\n" not in str(caught.value)
    for path in (tmp_path / "run" / "checkpoints").glob("*"):
        assert all_finite(checkpoint.load(path))


def test_the_scalers_own_skips_are_not_counted(config):
    resolved = resolve(config(execution="eager", precision="fp16", on_nonfinite="skip"))
    engine = Engine(own_model(), resolved, World(0, 0, 1, torch.device("cpu")))
    engine.scaler._scale.fill_(2.0**60)  # overflows in every gradient
    for batch in ResidentLoader(images(None), batch_size=BATCH, seed=0):
        engine.train_step(batch)
    assert engine.nonfinite.log.tolist() == [0] * 5
    assert engine.scaler.get_scale() == 2.0 ** (60 - STEPS)


@pytest.mark.parametrize("at_hand", [True, False])
def test_sgds_momentum_begins_at_zero_where_the_scaler_leaves_the_first_step_out(config, at_hand, monkeypatch):
    """torch's fused form makes it of memory as it was, and fills it in a step that is not left out."""
    monkeypatch.setattr(nonfinite, "_is_on_host", lambda device: at_hand)
    options = {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}}
    resolved = resolve(config(execution="eager", precision="fp16", on_nonfinite="skip", **options))
    engine = Engine(own_model(), resolved, World(0, 0, 1, torch.device("cpu")))
    engine.scaler._scale.fill_(2.0**60)  # overflows
    engine.train_step(next(iter(ResidentLoader(images(None), batch_size=BATCH, seed=0))))
    assert all(not state["momentum_buffer"].any() for state in engine.optimizer.state.values())
    assert len(engine.optimizer.state) == len(list(engine.model.parameters()))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_the_reference_backend_launches_no_kernel(config, backend, monkeypatch):
    monkeypatch.setattr(nonfinite, "_is_on_host", lambda device: False)
    seen, book = [], nonfinite.record_step_
    monkeypatch.setattr(nonfinite, "record_step_", lambda *a, **k: (seen.append(k["backend"]), book(*a, **k))[1])
    resolved = resolve(config(execution="eager", backend=backend))
    engine = Engine(own_model(), resolved, World(0, 0, 1, torch.device("cpu")))
    engine.train_step(next(iter(ResidentLoader(images(None), batch_size=BATCH, seed=0))))
    assert seen == [backend]
