"""Threads follow other programs' load only where no number depends on how many there are."""

import pytest
import torch
from torch import nn

from fastvae.data import ResidentLoader, TensorSource
from fastvae.data.loaders.torch_loader import TorchLoader
from fastvae.models import PRESETS, build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.start.thread_policy import may_adapt

IMAGES = torch.zeros(20, 1, 28, 28, dtype=torch.uint8)


def asked(preset="leaky", loader=None, change=lambda model: model, **settings):
    model = change(build(PRESETS[preset], (1, 28, 28), 2, None))
    config = resolve(TrainConfig(preset=preset, **settings))
    return may_adapt(config, model, loader or ResidentLoader(IMAGES, batch_size=10, seed=0))


class Own(nn.Identity):
    pass


def with_layer(layer):
    def change(model):
        model.encoder.append(layer)
        return model

    return change


def test_dense_presets_follow_the_load():
    assert asked("leaky")
    assert asked("classic")
    assert asked(change=with_layer(nn.GELU()))


@pytest.mark.parametrize(
    "other",
    [
        {"preset": "conv28"},
        {"change": with_layer(Own())},
        {"change": with_layer(nn.LayerNorm(4))},
        {"change": with_layer(nn.BatchNorm1d(4))},
        {"change": with_layer(nn.PReLU())},
        {"backend": "reference"},
        {"deterministic": True},
        {"autotune": False},
        {"loader": TorchLoader(TensorSource(IMAGES), batch_size=10, seed=0, workers=0)},
    ],
    ids=[
        "convolutions",
        "own model",
        "LayerNorm",
        "BatchNorm",
        "PReLU",
        "reference",
        "deterministic",
        "no trial",
        "reading processes",
    ],
)
def test_others_keep_their_threads(other):
    assert not asked(**other)
