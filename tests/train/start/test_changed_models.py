"""Models that their owner patches, or changes in a callback: each step is that of the model as it is then."""

import functools
import itertools
import os
import random
import threading
from os import environ as settings_of_the_shell

import numpy as np
import pytest
import torch
from plain_torch import distance
from torch import nn
from torch.compiler import is_compiling as is_being_read

import fastvae
from fastvae.errors import InputError
from fastvae.models.known import is_known
from fastvae.train import TrainConfig, Trainer
from fastvae.train.optim.step_counter import StepCounter
from fastvae.train.start import own_model

SCALES = {"value": 1.0}


def pictures(count=60):
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Encoder(nn.Module):
    """Read by Dynamo, as it is not one of torch's own."""

    def __init__(self, change=lambda h: h):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.LeakyReLU(), nn.Dropout(0.2), nn.Linear(16, 8))
        self.change = change

    def forward(self, x):
        return self.change(self.layers(x))


def build(encoder=None):
    """Build a VAE of torch's own layers, which are recorded without guards, or with another encoder."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)))
    return fastvae.VAE(Encoder().layers if encoder is None else encoder(), decoder, latent_shape=4)


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Train for some epochs, and return the weights."""
    monkeypatch.setattr(own_model, "_WORTH_RECORDING", 0)
    number = iter(range(100))

    def call(model, callback=lambda end: None, images=None, quiet=True, **settings):
        defaults = {
            "epochs": 3, "batch_size": 20, "lr": 1e-2, "precision": "fp64", "device": "cpu", "autotune": False,
            "out": tmp_path / f"run{next(number)}",
        }  # fmt: skip
        images = pictures() if images is None else images
        Trainer(model, images, TrainConfig(**{**defaults, **settings}), callbacks=[callback], quiet=quiet).fit()
        return {key: value.detach().clone() for key, value in model.state_dict().items()}

    return call


def layers_of(model):
    return model.encoder if isinstance(model.encoder, nn.Sequential) else model.encoder.layers


def raise_dropout(model):
    layers_of(model)[3].p = 0.6


def replace_activation(model):
    layers_of(model)[2] = nn.Tanh()


def change_slope(model):
    layers_of(model)[2].negative_slope = 0.5


def replace_likelihood(model):
    model.likelihood = fastvae.nn.Gaussian(0.5)


def freeze(model):
    layers_of(model)[1].requires_grad_(False)


def hook_a_weight(model):
    layers_of(model)[1].weight.register_hook(lambda gradient: gradient * 0)


def hook_a_layer(model):
    layers_of(model)[2].register_forward_hook(lambda module, given, output: output * 2)


def put_in_eval_mode(model):
    layers_of(model)[3].eval()


def patch_a_layer(model):
    layers_of(model)[2].forward = lambda x: x.relu() * 3


CHANGES = [
    raise_dropout, replace_activation, change_slope, replace_likelihood, freeze, hook_a_weight, hook_a_layer,
    put_in_eval_mode, patch_a_layer,
]  # fmt: skip


@pytest.mark.parametrize("encoder", [None, Encoder], ids=["known", "guarded"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_a_callback_changes_is_in_the_next_step(change, encoder, fit):
    def once(end):
        if end.epoch == 1:
            change(end.model)

    recorded, eager = (fit(build(encoder), once, execution=execution) for execution in ("traced", "eager"))
    assert distance(eager, recorded) < 1e-9
    assert distance(eager, fit(build(encoder), execution="eager")) > 1e-6  # the change matters


def test_a_weight_that_was_frozen_at_the_start_cannot_be_trained_later(fit):
    model = build()
    freeze(model)
    with pytest.raises(InputError, match=r"encoder.1.weight requires a gradient now, but it was frozen"):
        fit(model, lambda end: end.model.requires_grad_(True))


def test_a_weight_that_the_forward_pass_unfreezes_is_refused(fit):
    class Thawing(Encoder):
        def forward(self, x):
            self.layers[1].requires_grad_(True)
            return super().forward(x)

    model = build(Thawing)
    model.encoder.layers[1].requires_grad_(False)
    with pytest.raises(InputError, match=r"encoder.layers.1.weight requires a gradient now, but it was frozen"):
        fit(model, execution="eager")


def grow(model):
    layers_of(model).append(nn.Linear(8, 8))


def replace_weight(model):
    layers_of(model)[1].weight = nn.Parameter(torch.zeros(16, 64))


def lower_precision(model):
    model.bfloat16()


@pytest.mark.parametrize("encoder", [None, Encoder])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (grow, r"5.weight was added"),
        (replace_weight, r"1.weight was added"),
        (lower_precision, "is torch.bfloat16 now"),
    ],
)
def test_what_no_optimiser_has_is_refused(change, words, encoder, fit):
    with pytest.raises(InputError, match=words):
        fit(build(encoder), lambda end: change(end.model), execution="eager", precision="fp32")


def test_a_model_that_cannot_be_copied_is_trained_without_a_trial(fit, capsys):
    model = build(Encoder)
    model.encoder.lock = threading.Lock()
    fit(model, autotune=True, quiet=False, epochs=1)
    assert "traced (without a trial: the model cannot be copied)" in " ".join(capsys.readouterr().out.split())


def test_a_forward_pass_that_was_replaced_for_a_whole_class_is_not_known_to_be_pure(monkeypatch):
    model = build()
    assert is_known(model)
    plain = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: plain(self, x) * 2)
    assert not is_known(model)


def warm_up(model):
    plain = model.loss

    def loss(*arguments, **options):
        model.calls = getattr(model, "calls", 0) + 1
        return plain(*arguments, **{**options, "beta": min(1.0, model.calls / 10)})

    model.loss = loss


def scaled(h):
    return h * SCALES["value"]


@functools.lru_cache
def kept(rows):
    return torch.rand(rows, 1)


class View(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 8)
        self.kept = self.first.weight.t()

    def forward(self, x):
        return x.flatten(1) @ self.kept + self.first.bias


class Counting(Encoder):
    """Counts its calls in an array of numpy's, or takes its factors from a generator."""

    def __init__(self, kind):
        super().__init__()
        self.calls = np.zeros(1)
        self.factors = (factor for factor in map(float, range(1, 1000)))
        self.kind = kind

    def forward(self, x):
        if self.kind == "array":
            self.calls += 1
            return super().forward(x) * float(self.calls[0])
        return super().forward(x) * next(self.factors)


PATCHED = {
    "a loss with a warm-up": (None, warm_up),
    "a hooked weight": (Encoder, hook_a_weight),
    "a view of a weight": (View, None),
    "is_compiling": (lambda: Encoder(lambda h: h * 2 if torch.compiler.is_compiling() else h), None),
    "a kept result": (lambda: Encoder(lambda h: h + kept(len(h))), None),
    "is_compiling by another name": (lambda: Encoder(lambda h: h * 2 if is_being_read() else h), None),
    "an array that counts": (lambda: Counting("array"), None),
    "a generator": (lambda: Counting("generator"), None),
    "the environment by another name": (
        lambda: Encoder(lambda h: h * len(settings_of_the_shell.get("HOME", ""))),
        None,
    ),
    "the environment": (lambda: Encoder(lambda h: h * len(os.environ.get("HOME", ""))), None),
}


@pytest.mark.parametrize("name", PATCHED)
def test_what_no_guard_watches_is_eager(name, fit, capsys):
    encoder, patch = PATCHED[name]
    precision = "fp32" if encoder is View else "fp64"  # a view keeps its type where the weight is converted
    found = []
    for execution in ("auto", "eager"):
        kept.cache_clear()
        model = build(encoder)
        if patch is not None:
            patch(model)
        found.append(fit(model, execution=execution, precision=precision, epochs=1))
    assert distance(*found) < (1e-9 if precision == "fp64" else 1e-5)
    model = build(encoder)
    if patch is not None:
        patch(model)
    with pytest.raises(InputError, match="execution is traced, but the model "):
        fit(model, execution="traced", precision=precision)


def test_low_precision_copies_follow_a_callback(fit):
    seen = []

    def zero(end):
        seen.append(end.train.loss)
        if end.epoch == 1:
            with torch.no_grad():
                for parameter in end.model.parameters():
                    parameter.zero_()

    for precision in ("fp32", "bf16"):
        fit(build(), zero, precision=precision, execution="eager", epochs=2, lr=1e-9)
    assert seen[3] == pytest.approx(seen[1], rel=1e-4)  # 64 log 2, from the first step on


def test_a_model_that_works_in_place_leaves_its_owners_images_alone(fit):
    class Halving(nn.Flatten):
        def forward(self, x):
            return super().forward(x.mul_(0.5))

    images = torch.rand(60, 1, 8, 8, dtype=torch.float32)
    before = images.clone()
    model = build()
    model.encoder[0] = Halving()
    fit(model, images=(images, images[:10]), execution="eager")
    assert torch.equal(images, before)


@pytest.mark.parametrize("execution", ["eager", "traced"])
def test_a_model_in_fp64_takes_images_in_fp32(execution, fit):
    images = pictures().float() / 255
    assert distance(fit(build(), images=images, execution=execution), fit(build(), execution=execution)) < 1e-4


def test_a_callback_that_raises_loses_nothing(tmp_path, fit):
    def broken(end):
        if end.epoch == 2:
            raise KeyError("plot failed")

    with pytest.raises(KeyError):
        fit(build(), broken, out=tmp_path / "run")
    resumed = build()
    Trainer(resumed, pictures(), TrainConfig(resume=tmp_path / "run"), quiet=True).fit()
    whole = fit(build())
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.items())


def test_an_error_after_which_the_device_answers_nothing_is_the_one_reported(fit, monkeypatch):
    def fail(*_):
        raise RuntimeError("CUDA error")

    def broken(end):
        monkeypatch.setattr(StepCounter, "__getattribute__", fail)
        raise KeyError("plot failed")

    with pytest.raises(KeyError, match="plot failed"):
        fit(build(), broken)


@pytest.mark.parametrize("execution", ["eager", "traced"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_layer_that_is_used_twice_keeps_its_weights(execution, precision, fit):
    shared = nn.Linear(16, 16)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), shared, nn.ReLU(), shared, nn.Linear(16, 8))
    model = build(lambda: layers)
    weight, bias = shared.weight, shared.bias
    before = weight.detach().clone()
    fit(model, execution=execution, precision=precision)
    assert shared.weight is weight
    assert shared.bias is bias
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not torch.equal(weight, before)


class Failing(nn.Module):
    """Fails in one of its calls, after BatchNorm has taken the images into account."""

    def __init__(self, call):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 8))
        self.register_buffer("noise", torch.zeros(()))
        self.call = call

    def forward(self, x):
        h = self.layers(x)
        if next(self.call):
            raise ArithmeticError("no step like this")
        drawn = random.gauss(0, 0.1) + np.random.standard_normal() * 0.1 if self.training else 0.0
        return h + drawn


@pytest.mark.parametrize("at", [3, 5, 8], ids=["in the middle of an epoch", "in its evaluation", "in the next epoch"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_forward_pass_that_raises_loses_nothing_but_its_step(at, accumulate, tmp_path, fit, capsys):
    calls = lambda: itertools.chain([False] * (at * accumulate), [True], itertools.repeat(False))  # noqa: E731
    never = itertools.repeat(False)
    random.seed(5), np.random.seed(6)
    # An epoch has 3 steps, and an evaluation calls the encoder once for the test images and once for the figure.
    with pytest.raises(ArithmeticError):
        fit(build(lambda: Failing(calls())), out=tmp_path / "run", accumulate=accumulate, quiet=False)
    assert "saved at step" in capsys.readouterr().out
    resumed = build(lambda: Failing(never))
    random.seed(1), np.random.seed(1)
    Trainer(resumed, pictures(), TrainConfig(resume=tmp_path / "run"), quiet=True).fit()
    random.seed(5), np.random.seed(6)
    whole = fit(build(lambda: Failing(never)), accumulate=accumulate)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.items())


def test_sampling_and_reconstructing_leave_batch_norm_alone():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 8))
    model = build(lambda: encoder)
    images = pictures(3)
    before = encoder[2].running_mean.clone()
    one, all_three = model.reconstruct(images[:1]), model.reconstruct(images)
    torch.testing.assert_close(one, all_three[:1])
    model.sample(2)
    assert torch.equal(encoder[2].running_mean, before)
    assert model.training
    assert encoder[2].training


def test_pixels_of_numpy_are_those_of_torch(fit):
    images = pictures()
    assert distance(fit(build(), images=np.asarray(images)), fit(build(), images=images)) == 0
