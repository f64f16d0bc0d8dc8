"""Twenty models by a hand that had not seen fastvae (``strangers``) have the weights of plain torch, in fp64."""

import importlib
import random
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import strangers
import torch
from plain_torch import distance, train_in_plain_torch

import fastvae
from fastvae.train import TrainConfig, Trainer
from fastvae.train.start import own_model

NAMES = sorted(path.stem for path in Path(strangers.__file__).parent.glob("[a-z]*.py"))
STEPS = 50
BATCH = 16
# A bias before a norm has no gradient but its rounding, which Adam's 1e-8 would blow up to a step: two of torch's own
# implementations of Adam leave such biases up to 0.12 apart.
EPS = 1e-4


def build(name):
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    encoder, decoder, latent_shape, shape = getattr(importlib.import_module(f"strangers.{name}"), name)()
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (BATCH * STEPS, *shape), dtype=torch.uint8, generator=generator)
    model = fastvae.VAE(encoder, decoder, latent_shape=latent_shape).double()
    random.seed(1)
    np.random.seed(1)
    return model, images


@pytest.mark.parametrize("name", NAMES)
def test_a_strangers_model_has_the_weights_of_plain_torch(name, tmp_path, monkeypatch):
    """By default settings, for a run of any length: whether its steps can be recorded is found out, not assumed."""
    monkeypatch.setattr(own_model, "_WORTH_RECORDING", 0)
    seen = {}

    def keep(end):  # before anything that the end of a run does
        seen.update({key: value.detach().clone() for key, value in end.model.named_parameters()})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old weight_norm and reentrant checkpoints are deprecated, say
        model, images = build(name)
        adam = partial(torch.optim.Adam, eps=EPS)
        train_in_plain_torch(model, images, batch_size=BATCH, make=adam)
        with torch.no_grad():  # an evaluation, as at the end of an epoch: one model masks its weights in forward
            model.eval().loss(images[:8], fastvae.Noise(0))
        expected = {key: value.detach() for key, value in model.named_parameters()}
        model, images = build(name)
        config = TrainConfig(
            epochs=1, batch_size=BATCH, lr=1e-3, optimizer="adam", optimizer_options={"eps": EPS}, seed=0, device="cpu",
            out=tmp_path / name,
        )  # fmt: skip
        outcome = Trainer(model, (images, images[:8]), config, callbacks=[keep]).fit()
    assert outcome.status == 0
    assert distance(expected, seen) < 1e-7
