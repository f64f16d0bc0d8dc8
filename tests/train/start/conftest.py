"""Small runs of a model of one's own."""

import json

import pytest
import torch
from torch import nn

import fastvae
from fastvae.train.checkpoint import checkpoint
from fastvae.train.start import own_model

from .small import pictures

IMAGES = torch.arange(60 * 16).mul(37).remainder(251).to(torch.uint8).view(60, 1, 4, 4)


def make_model(seed=4, latents=2):
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 2 * latents))
    decoder = nn.Sequential(nn.Linear(latents, 16), nn.Unflatten(1, (1, 4, 4)))
    return fastvae.VAE(encoder, decoder, latent_shape=latents)


@pytest.fixture
def fit(tmp_path):
    """Train on 54 images: 6 steps of 10 images in an epoch, say. Returns the run's folder."""

    def start(out="run", *, model=None, images=IMAGES, quiet=True, **settings):
        quick = (
            {} if settings.get("resume") else {"batch_size": 10, "epochs": 2, "execution": "eager", "precision": "fp64"}
        )
        config = fastvae.TrainConfig(**{**quick, "autotune": False, "device": "cpu", "out": tmp_path / out, **settings})
        return fastvae.Trainer(model or make_model(), images, config, quiet=quiet).fit().folder

    return start


@pytest.fixture
def last():
    return lambda folder: checkpoint.newest(folder / "checkpoints")[1]


@pytest.fixture
def described():
    return lambda folder: json.loads((folder / "config.json").read_text())


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train on 60 images for some epochs, with every step recorded that can be. Returns the weights."""
    monkeypatch.setattr(own_model, "_WORTH_RECORDING", 0)
    number = iter(range(100))

    def call(model, callback=lambda end: None, images=None, quiet=True, **settings):
        defaults = {
            "epochs": 3, "batch_size": 20, "lr": 1e-2, "precision": "fp64", "device": "cpu", "autotune": False,
            "out": tmp_path / f"run{next(number)}",
        }  # fmt: skip
        images = pictures() if images is None else images
        fastvae.Trainer(
            model, images, fastvae.TrainConfig(**{**defaults, **settings}), callbacks=[callback], quiet=quiet
        ).fit()
        return {key: value.detach().clone() for key, value in model.state_dict().items()}

    return call
