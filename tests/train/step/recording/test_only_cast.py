"""Low-precision copies stand for the weights that a forward pass does nothing with but cast."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastvae
from fastvae.train import TrainConfig, Trainer
from fastvae.train.start import own_model
from fastvae.train.step.recording.only_cast import only_cast

LOW = torch.bfloat16


def autocast():
    return torch.autocast("cpu", LOW)


def test_a_weight_that_is_read_in_another_way_is_left():
    weight, norm, bias = torch.ones(3, 4), torch.ones(3, 4), torch.ones(3)
    copies = {tensor: tensor.to(LOW) for tensor in (weight, norm, bias)}

    def forward(x, weight, norm, bias):
        return F.linear(x, weight, bias) * F.linear(x, norm).sum() * norm.norm()

    assert only_cast(forward, (torch.ones(2, 4), weight, norm, bias), copies, autocast) == [False, True, False, True]
    assert only_cast(forward, (torch.ones(2, 4), weight, norm, bias), {}, autocast) == [False] * 4
    without = contextlib.nullcontext
    assert only_cast(forward, (torch.ones(2, 4), weight, norm, bias), copies, without) == [False] * 4


def standardised(layer, x):
    weight = layer.weight
    weight = (weight - weight.mean(1, keepdim=True)) / (weight.std(1, keepdim=True) + 1e-5)
    return F.linear(x, weight / 8, layer.bias)


def without_autocast(layer, x):
    with torch.autocast("cpu", enabled=False):
        return layer(x.float())


FORWARDS = {
    "plain": lambda layer, x: layer(x),
    "standardised": standardised,
    "normalised": lambda layer, x: F.linear(x, F.normalize(layer.weight), layer.bias),
    "times its norm": lambda layer, x: layer(x) * layer.weight.norm(),
    "sharp": lambda layer, x: layer(x) + torch.sin(2000 * layer.weight).mean(),
    "without autocast": without_autocast,
}


@pytest.mark.parametrize("name", FORWARDS)
def test_a_recorded_bf16_run_is_the_eager_one(name, tmp_path, monkeypatch):
    monkeypatch.setattr(own_model, "_WORTH_RECORDING", 0)
    images = torch.randint(0, 256, (160, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(64, 32)
            self.last = nn.Linear(32, 8)

        def forward(self, x):
            return self.last(torch.relu(FORWARDS[name](self.first, x.flatten(1))))

    def trained(execution):
        torch.manual_seed(0)
        decoder = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)))
        model = fastvae.VAE(Encoder(), decoder, latent_shape=4)
        config = TrainConfig(
            precision="bf16", execution=execution, epochs=1, batch_size=16, lr=1e-2, device="cpu",
            out=tmp_path / execution,
        )  # fmt: skip
        assert Trainer(model, (images, images[:8]), config, quiet=True).fit().status == 0
        return model.state_dict()

    eager, traced = trained("eager"), trained("traced")
    for key, value in eager.items():
        assert torch.allclose(traced[key], value, rtol=0, atol=2e-4), key
