"""A model as strangers write them; see tied_orthogonal at the end."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class TiedEncoder(nn.Module):
    def __init__(self, n_in=64, n_hid=32, n_z=8, corruption=0.3):
        super().__init__()
        self.proj = nn.utils.parametrizations.orthogonal(nn.Linear(n_in, n_hid, bias=False))
        self.b = nn.Parameter(torch.zeros(n_hid))
        self.hidden = nn.Linear(n_hid, n_hid)
        self.mu, self.logvar = nn.Linear(n_hid, n_z), nn.Linear(n_hid, n_z)
        self.corruption = corruption

    def get_corrupted_input(self, x):
        """Zeroes some pixels, as theano's dA tutorial did."""
        mask = np.random.binomial(size=tuple(x.shape), n=1, p=1 - self.corruption)
        return torch.from_numpy(mask).to(x) * x

    def forward(self, x):
        x = x.view(x.shape[0], -1)
        if self.training:
            x = self.get_corrupted_input(x)
            self.corruption = max(0.05, self.corruption * 0.95)
        h = torch.tanh(self.proj(x) + self.b)
        h = F.softplus(self.hidden(h))
        return torch.cat([self.mu(h), self.logvar(h) - 1], dim=1)


class TiedDecoder(nn.Module):
    def __init__(self, encoder: TiedEncoder, n_z=8, n_hid=32):
        super().__init__()
        self._tied = [encoder]  # in a list, so that it is not registered a second time
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.up = nn.utils.parametrizations.weight_norm(nn.Linear(n_z, n_hid))
        self.b_prime = nn.Parameter(torch.zeros(64))

    def forward(self, z):
        encoder = self._tied[0]
        h = torch.tanh(self.up(z))
        h = torch.tanh(F.linear(h, encoder.hidden.weight.t()))
        return (self.scale * F.linear(h, encoder.proj.weight.T) + self.b_prime).view(-1, 1, 8, 8)


def tied_orthogonal() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Decoder uses the encoder's weights via a list, orthogonal, 0-d parameter, numpy masks; theano's dA, ported."""
    encoder = TiedEncoder()
    return encoder, TiedDecoder(encoder), 8, (1, 8, 8)
