"""A model as strangers write them; see slot_attention at the end."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import einsum, nn


@lru_cache(maxsize=8)
def build_grid(resolution):
    ranges = [np.linspace(0.0, 1.0, num=res) for res in resolution]
    grid = np.meshgrid(*ranges, sparse=False, indexing="ij")
    grid = np.stack(grid, axis=-1)
    grid = np.reshape(grid, [resolution[0], resolution[1], -1])
    grid = np.expand_dims(grid, axis=0)
    grid = grid.astype(np.float32)
    return torch.from_numpy(np.concatenate([grid, 1.0 - grid], axis=-1))


class SoftPositionEmbed(nn.Module):
    def __init__(self, hidden_size, resolution):
        super().__init__()
        self.embedding = nn.Linear(4, hidden_size, bias=True)
        self.resolution = resolution

    def forward(self, inputs):
        return inputs + self.embedding(build_grid(self.resolution).to(inputs))


class SlotAttention(nn.Module):
    def __init__(self, num_slots, dim, iters=3, eps=1e-8, hidden_dim=32):
        super().__init__()
        self.num_slots = num_slots
        self.iters = iters
        self.eps = eps
        self.scale = dim**-0.5

        self.slots_mu = nn.Parameter(torch.randn(1, 1, dim))
        self.slots_logsigma = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.xavier_uniform_(self.slots_logsigma)

        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.gru = nn.GRUCell(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, dim))
        self.norm_input = nn.LayerNorm(dim)
        self.norm_slots = nn.LayerNorm(dim)
        self.norm_pre_ff = nn.LayerNorm(dim)

    def forward(self, inputs, num_slots=None):
        b, _n, d = inputs.shape
        n_s = num_slots if num_slots is not None else self.num_slots

        mu = self.slots_mu.expand(b, n_s, -1)
        sigma = self.slots_logsigma.exp().expand(b, n_s, -1)
        slots = mu + sigma * torch.randn(mu.shape, device=inputs.device, dtype=inputs.dtype)
        init_slots = slots

        inputs = self.norm_input(inputs)
        k, v = self.to_k(inputs), self.to_v(inputs)

        for i in range(self.iters):
            slots_prev = slots
            if i == self.iters - 1:
                slots = slots.detach() + init_slots - init_slots.detach()  # implicit differentiation
            slots = self.norm_slots(slots)
            q = self.to_q(slots)
            dots = einsum("bid,bjd->bij", q, k) * self.scale
            attn = dots.softmax(dim=1) + self.eps
            attn = attn / attn.sum(dim=-1, keepdim=True)
            updates = einsum("bjd,bij->bid", v, attn)
            slots = self.gru(updates.reshape(-1, d), slots_prev.reshape(-1, d))
            slots = slots.reshape(b, -1, d)
            slots = slots + self.mlp(self.norm_pre_ff(slots))
        return slots


class SlotEncoder(nn.Module):
    def __init__(self, num_slots=3, hid=24, latent=8):
        super().__init__()
        self.conv1 = nn.Conv2d(3, hid, 5, padding=2)
        self.conv2 = nn.Conv2d(hid, hid, 5, padding=2, stride=2)
        self.encoder_pos = SoftPositionEmbed(hid, (8, 8))
        self.slot_attention = SlotAttention(num_slots, hid)
        self.fc_mu = nn.Linear(hid, latent)
        self.fc_logvar = nn.Linear(hid, latent)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = x.permute(0, 2, 3, 1)
        x = self.encoder_pos(x)
        x = torch.flatten(x, 1, 2)
        x = nn.LayerNorm(x.shape[1:], elementwise_affine=False, device=x.device)(x)
        slots = self.slot_attention(x)
        # (B, 2 * num_slots, latent): a Gaussian for each slot
        return torch.cat([self.fc_mu(slots), self.fc_logvar(slots)], dim=1)


class SpatialBroadcastDecoder(nn.Module):
    def __init__(self, hid=16, latent=8, resolution=(16, 16)):
        super().__init__()
        self.resolution = resolution
        self.decoder_pos = SoftPositionEmbed(latent, resolution)
        self.conv1 = nn.Conv2d(latent, hid, 3, padding=1)
        self.conv2 = nn.ConvTranspose2d(hid, 4, 3, padding=1)
        self.masks = None

    def forward(self, slots):
        b, k, d = slots.shape
        # `slots` has shape: [batch_size, num_slots, slot_size].
        slots = slots.reshape(-1, d).unsqueeze(1).unsqueeze(2)
        slots = slots.repeat((1, *self.resolution, 1))
        x = self.decoder_pos(slots).permute(0, 3, 1, 2)
        x = self.conv2(F.relu(self.conv1(x)))
        recons, masks = x.reshape(b, k, 4, *self.resolution).split([3, 1], dim=2)
        masks = masks.softmax(dim=1)
        self.masks = masks
        return torch.sum(recons * masks, dim=1)


def slot_attention() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Random slots, GRUCell iterations with detach, lru_cached numpy grid, latents (slots, d); slot-attention ports."""
    return SlotEncoder(), SpatialBroadcastDecoder(), (3, 8), (3, 16, 16)
