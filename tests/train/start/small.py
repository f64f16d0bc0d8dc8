"""A small model of one's own, and images for it."""

import torch
from torch import nn

import fastvae


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


def layers_of(model):
    return model.encoder if isinstance(model.encoder, nn.Sequential) else model.encoder.layers


def hook_a_weight(model):
    layers_of(model)[1].weight.register_hook(lambda gradient: gradient * 0)
