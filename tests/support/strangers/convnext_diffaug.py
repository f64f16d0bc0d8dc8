"""A model as strangers write them; see convnext_diffaug at the end."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def rand_brightness(x):
    return x + (torch.rand(x.size(0), 1, 1, 1, dtype=x.dtype, device=x.device) - 0.5) * 0.2


def rand_contrast(x):
    x_mean = x.mean(dim=[1, 2, 3], keepdim=True)
    return (x - x_mean) * (torch.rand(x.size(0), 1, 1, 1, dtype=x.dtype, device=x.device) + 0.5) + x_mean


def rand_translation(x, ratio=0.125):
    shift_x, shift_y = int(x.size(2) * ratio + 0.5), int(x.size(3) * ratio + 0.5)
    translation_x = torch.randint(-shift_x, shift_x + 1, size=[x.size(0), 1, 1], device=x.device)
    translation_y = torch.randint(-shift_y, shift_y + 1, size=[x.size(0), 1, 1], device=x.device)
    grid_batch, grid_x, grid_y = torch.meshgrid(
        torch.arange(x.size(0), dtype=torch.long, device=x.device),
        torch.arange(x.size(2), dtype=torch.long, device=x.device),
        torch.arange(x.size(3), dtype=torch.long, device=x.device),
        indexing="ij",
    )
    grid_x = torch.clamp(grid_x + translation_x + 1, 0, x.size(2) + 1)
    grid_y = torch.clamp(grid_y + translation_y + 1, 0, x.size(3) + 1)
    x_pad = F.pad(x, [1, 1, 1, 1, 0, 0, 0, 0])
    return x_pad.permute(0, 2, 3, 1).contiguous()[grid_batch, grid_x, grid_y].permute(0, 3, 1, 2)


AUGMENT_FNS = {"color": [rand_brightness, rand_contrast], "translation": [rand_translation]}


def DiffAugment(x, policy="color,translation"):
    for p in policy.split(","):
        for f in AUGMENT_FNS[p]:
            x = f(x)
    return x.contiguous()


class GRN(nn.Module):
    """Global response normalisation, channels last."""

    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x):
        Gx = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        Nx = Gx / (Gx.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * Nx) + self.beta + x


class ChannelsFirstLayerNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x):
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim, survival=0.8):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 2 * dim)
        self.act = nn.GELU(approximate="tanh")
        self.grn = GRN(2 * dim)
        self.pwconv2 = nn.Linear(2 * dim, dim)
        self.survival = survival

    def forward(self, x):
        # stochastic depth of the whole batch: the block is not even called
        if self.training and torch.rand(1).item() > self.survival:
            return x
        input = x
        x = self.dwconv(x)
        x = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        x = self.pwconv2(self.grn(self.act(self.pwconv1(self.norm(x)))))
        x = x.permute(0, 3, 1, 2)
        return input + (x if self.training else self.survival * x)


class ConvNeXtEncoder(nn.Module):
    def __init__(self, dim=16, latent=24):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, dim, kernel_size=2, stride=2), ChannelsFirstLayerNorm(dim))
        self.stage1 = nn.Sequential(ConvNeXtBlock(dim), ConvNeXtBlock(dim, 0.6))
        self.down = nn.Sequential(ChannelsFirstLayerNorm(dim), nn.Conv2d(dim, 2 * dim, kernel_size=2, stride=2))
        self.stage2 = ConvNeXtBlock(2 * dim, 0.5)
        self.norm = nn.LayerNorm(2 * dim)
        self.head = nn.Linear(2 * dim, 2 * latent)

    def forward(self, x):
        if self.training:
            x = DiffAugment(x)
            if np.random.rand() < 0.5:
                x = torch.flip(x, dims=(-1,))
        x = x.to(memory_format=torch.channels_last)
        x = self.stage2(self.down(self.stage1(self.stem(x))))
        return self.head(self.norm(x.mean([-2, -1])))


class CanvasDecoder(nn.Module):
    """Paints more than is asked for, and cuts the middle out."""

    def __init__(self, dim=32, latent=24):
        super().__init__()
        self.fc = nn.Linear(latent, dim * 25)
        self.norm = nn.BatchNorm2d(dim, track_running_stats=False)
        self.block = ConvNeXtBlock(dim, 0.9)
        self.expand = nn.Conv2d(dim, 3 * 16, 1)

    def forward(self, z):
        h = self.fc(z).unflatten(1, (-1, 5, 5)).to(memory_format=torch.channels_last)
        h = self.expand(self.block(F.relu6(self.norm(h))))
        b, _, hh, ww = h.shape
        # depth to space: b (p q c) h w -> b c (h p) (w q)
        h = h.reshape(b, 4, 4, 3, hh, ww).permute(0, 3, 4, 1, 5, 2).reshape(b, 3, 4 * hh, 4 * ww)
        if self.training:
            top, left = torch.randint(1, 4, (2,)).tolist()
        else:
            top = left = 2
        return h[:, :, top : top + 16, left : left + 16]


def convnext_diffaug() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """DiffAugment in forward, blocks skipped by .item(), channels_last, BN sans stats, cropped view; ConvNeXt V2."""
    return ConvNeXtEncoder(), CanvasDecoder(), 24, (3, 16, 16)
