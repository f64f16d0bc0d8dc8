"""Models that their owner patches, or changes in a callback: each step is that of the model as it is then."""

import itertools
import random
import threading

import numpy as np
import pytest
import torch
from plain_torch import distance
from torch import nn

import fastvae
from fastvae.errors import InputError
from fastvae.models.known import is_known
from fastvae.train import TrainConfig, Trainer
from fastvae.train.optim.step_counter import StepCounter

from .small import Encoder, build, hook_a_weight, layers_of, pictures


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
def test_what_a_callback_changes_is_in_the_next_step(change, encoder, trained):
    def once(end):
        if end.epoch == 1:
            change(end.model)

    recorded, eager = (trained(build(encoder), once, execution=execution) for execution in ("traced", "eager"))
    assert distance(eager, recorded) < 1e-9
    assert distance(eager, trained(build(encoder), execution="eager")) > 1e-6  # the change matters


def test_a_weight_that_was_frozen_at_the_start_cannot_be_trained_later(trained):
    model = build()
    freeze(model)
    with pytest.raises(InputError, match=r"encoder.1.weight requires a gradient now, but it was frozen"):
        trained(model, lambda end: end.model.requires_grad_(True))


def test_a_weight_that_the_forward_pass_unfreezes_is_refused(trained):
    class Thawing(Encoder):
        def forward(self, x):
            self.layers[1].requires_grad_(True)
            return super().forward(x)

    model = build(Thawing)
    model.encoder.layers[1].requires_grad_(False)
    with pytest.raises(InputError, match=r"encoder.layers.1.weight requires a gradient now, but it was frozen"):
        trained(model, execution="eager")


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
def test_what_no_optimiser_has_is_refused(change, words, encoder, trained):
    with pytest.raises(InputError, match=words):
        trained(build(encoder), lambda end: change(end.model), execution="eager", precision="fp32")


def test_a_model_that_cannot_be_copied_is_trained_without_a_trial(trained, capsys):
    model = build(Encoder)
    model.encoder.lock = threading.Lock()
    trained(model, autotune=True, quiet=False, epochs=1)
    assert "traced (without a trial: the model cannot be copied)" in " ".join(capsys.readouterr().out.split())


def test_a_forward_pass_that_was_replaced_for_a_whole_class_is_not_known_to_be_pure(monkeypatch):
    model = build()
    assert is_known(model)
    plain = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: plain(self, x) * 2)
    assert not is_known(model)


def test_low_precision_copies_follow_a_callback(trained):
    seen = []

    def zero(end):
        seen.append(end.train.loss)
        if end.epoch == 1:
            with torch.no_grad():
                for parameter in end.model.parameters():
                    parameter.zero_()

    for precision in ("fp32", "bf16"):
        trained(build(), zero, precision=precision, execution="eager", epochs=2, lr=1e-9)
    assert seen[3] == pytest.approx(seen[1], rel=1e-4)  # 64 log 2, from the first step on


def test_a_model_that_works_in_place_leaves_its_owners_images_alone(trained):
    class Halving(nn.Flatten):
        def forward(self, x):
            return super().forward(x.mul_(0.5))

    images = torch.rand(60, 1, 8, 8, dtype=torch.float32)
    before = images.clone()
    model = build()
    model.encoder[0] = Halving()
    trained(model, images=(images, images[:10]), execution="eager")
    assert torch.equal(images, before)


@pytest.mark.parametrize("execution", ["eager", "traced"])
def test_a_model_in_fp64_takes_images_in_fp32(execution, trained):
    images = pictures().float() / 255
    assert distance(trained(build(), images=images, execution=execution), trained(build(), execution=execution)) < 1e-4


def test_a_callback_that_raises_loses_nothing(tmp_path, trained):
    def broken(end):
        if end.epoch == 2:
            raise KeyError("plot failed")

    with pytest.raises(KeyError):
        trained(build(), broken, out=tmp_path / "run")
    resumed = build()
    Trainer(resumed, pictures(), TrainConfig(resume=tmp_path / "run"), quiet=True).fit()
    whole = trained(build())
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.items())


def test_an_error_after_which_the_device_answers_nothing_is_the_one_reported(trained, monkeypatch):
    def fail(*_):
        raise RuntimeError("CUDA error")

    def broken(end):
        monkeypatch.setattr(StepCounter, "__getattribute__", fail)
        raise KeyError("plot failed")

    with pytest.raises(KeyError, match="plot failed"):
        trained(build(), broken)


@pytest.mark.parametrize("execution", ["eager", "traced"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_layer_that_is_used_twice_keeps_its_weights(execution, precision, trained):
    shared = nn.Linear(16, 16)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), shared, nn.ReLU(), shared, nn.Linear(16, 8))
    model = build(lambda: layers)
    weight, bias = shared.weight, shared.bias
    before = weight.detach().clone()
    trained(model, execution=execution, precision=precision)
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
def test_a_forward_pass_that_raises_loses_nothing_but_its_step(at, accumulate, tmp_path, trained, capsys):
    calls = lambda: itertools.chain([False] * (at * accumulate), [True], itertools.repeat(False))  # noqa: E731
    never = itertools.repeat(False)
    random.seed(5), np.random.seed(6)
    # An epoch has 3 steps, and an evaluation calls the encoder once for the test images and once for the figure.
    with pytest.raises(ArithmeticError):
        trained(build(lambda: Failing(calls())), out=tmp_path / "run", accumulate=accumulate, quiet=False)
    assert "saved at step" in capsys.readouterr().out
    resumed = build(lambda: Failing(never))
    random.seed(1), np.random.seed(1)
    Trainer(resumed, pictures(), TrainConfig(resume=tmp_path / "run"), quiet=True).fit()
    random.seed(5), np.random.seed(6)
    whole = trained(build(lambda: Failing(never)), accumulate=accumulate)
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


def test_pixels_of_numpy_are_those_of_torch(trained):
    images = pictures()
    assert distance(trained(build(), images=np.asarray(images)), trained(build(), images=images)) == 0
