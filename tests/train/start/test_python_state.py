"""A run says which Python numbers of a user's own model it changed: they are not in its checkpoints."""

import pytest
import torch
from torch import nn

import fastvae


class Counting(nn.Linear):
    """Counts its calls, in a number and in a list."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.calls = 0
        self.history = [0.0]
        self.scale = 1.0
        self.unknown = float("nan")

    def forward(self, x):
        self.calls += 1
        self.history.append(0.5)
        self.unknown = float("nan")
        return super().forward(x) * self.scale


def fail_at_the_third(layer, *_):
    if layer.calls == 3:
        raise ZeroDivisionError


def counting():
    encoder = nn.Sequential(nn.Flatten(), Counting(16, 4))
    return fastvae.VAE(encoder, nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4))), latent_shape=2)


def test_numbers_that_training_changed_are_named(fit, capsys):
    fit(model=counting(), quiet=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "training changed encoder.1.calls, encoder.1.history of the model, which no checkpoint has" in said
    assert "register_buffer" in said
    assert "scale" not in said


def test_nothing_is_said_of_a_model_that_changes_none(fit, capsys):
    fit(quiet=False)
    assert "no checkpoint has" not in capsys.readouterr().out


def test_it_is_said_after_an_error_too(fit, capsys):
    model = counting()
    model.encoder[1].register_forward_hook(fail_at_the_third)
    with pytest.raises(ZeroDivisionError):
        fit(model=model, quiet=False)
    assert "training changed encoder.1.calls" in " ".join(capsys.readouterr().out.split())


class Keeping(nn.Linear):
    """Keeps tensors that are in no state dict, and one that is."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.total = torch.zeros(4)
        self.last = None
        self.still = torch.ones(4)
        self.register_buffer("mean", torch.zeros(4), persistent=False)
        self.register_buffer("saved", torch.zeros(4))

    def forward(self, x):
        output = super().forward(x)
        with torch.no_grad():
            self.total = self.total + output.mean(0)
            self.mean += output.mean(0)
            self.saved += output.mean(0)
        self.last = output.detach()  # of the last batch, no state
        return output * self.still


def test_loose_tensors_that_training_changed_are_named(fit, capsys):
    model = counting()
    model.encoder[1] = Keeping(16, 4)
    fit(model=model, quiet=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "training changed encoder.1.mean, encoder.1.total of the model, which no checkpoint has" in said
