"""Models whose steps depend on what no guard watches: they are eager."""

import functools
import os
from os import environ as settings_of_the_shell

import numpy as np
import pytest
import torch
from plain_torch import distance
from torch import nn
from torch.compiler import is_compiling as is_being_read

from fastvae.errors import InputError

from .small import Encoder, build, hook_a_weight

SCALES = {"value": 1.0}


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
def test_what_no_guard_watches_is_eager(name, trained, capsys):
    encoder, patch = PATCHED[name]
    precision = "fp32" if encoder is View else "fp64"  # a view keeps its type where the weight is converted
    found = []
    for execution in ("auto", "eager"):
        kept.cache_clear()
        model = build(encoder)
        if patch is not None:
            patch(model)
        found.append(trained(model, execution=execution, precision=precision, epochs=1))
    assert distance(*found) < (1e-9 if precision == "fp64" else 1e-5)
    model = build(encoder)
    if patch is not None:
        patch(model)
    with pytest.raises(InputError, match="execution is traced, but the model "):
        trained(model, execution="traced", precision=precision)
