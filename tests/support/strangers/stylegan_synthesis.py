"""A model as strangers write them; see stylegan_synthesis at the end."""

import math
import random

import torch
import torch.nn.functional as F
from torch import nn


class PixelNorm(nn.Module):
    def forward(self, input):
        return input * torch.rsqrt(torch.mean(input**2, dim=1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    def __init__(self, in_dim, out_dim, bias_init=0, lr_mul=1.0, activation=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim).div_(lr_mul))
        self.bias = nn.Parameter(torch.zeros(out_dim).fill_(bias_init))
        self.activation = activation
        self.scale = (1 / math.sqrt(in_dim)) * lr_mul
        self.lr_mul = lr_mul

    def forward(self, input):
        out = F.linear(input, self.weight * self.scale, bias=self.bias * self.lr_mul)
        if self.activation:
            out = F.leaky_relu(out, 0.2) * 2**0.5
        return out


class Blur(nn.Module):
    def __init__(self, kernel=(1, 3, 3, 1)):
        super().__init__()
        k = torch.tensor(kernel, dtype=torch.float32)
        k = k[None, :] * k[:, None]
        k /= k.sum()
        self.register_buffer("kernel", k, persistent=False)

    def forward(self, x):
        c = x.shape[1]
        weight = self.kernel[None, None].expand(c, 1, -1, -1)
        return F.conv2d(F.pad(x, (2, 1, 2, 1)), weight, groups=c)


class ModulatedConv2d(nn.Module):
    def __init__(self, in_channel, out_channel, kernel_size, style_dim, demodulate=True):
        super().__init__()
        self.eps = 1e-8
        self.in_channel, self.out_channel, self.kernel_size = in_channel, out_channel, kernel_size
        self.scale = 1 / math.sqrt(in_channel * kernel_size**2)
        self.padding = kernel_size // 2
        self.weight = nn.Parameter(torch.randn(1, out_channel, in_channel, kernel_size, kernel_size))
        self.modulation = EqualLinear(style_dim, in_channel, bias_init=1)
        self.demodulate = demodulate

    def forward(self, input, style):
        batch, in_channel, height, width = input.shape
        style = self.modulation(style).view(batch, 1, in_channel, 1, 1)
        weight = self.scale * self.weight * style
        if self.demodulate:
            demod = torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + self.eps)
            weight = weight * demod.view(batch, self.out_channel, 1, 1, 1)
        weight = weight.view(batch * self.out_channel, in_channel, self.kernel_size, self.kernel_size)
        # the batch becomes groups
        out = F.conv2d(input.reshape(1, batch * in_channel, height, width), weight, padding=self.padding, groups=batch)
        return out.view(batch, self.out_channel, *out.shape[-2:])


class NoiseInjection(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.05))

    def forward(self, image, noise=None):
        if noise is None:
            batch, _, height, width = image.shape
            noise = image.new_empty(batch, 1, height, width).normal_()
        return image + self.weight * noise


class StyleEncoder(nn.Module):
    def __init__(self, latent):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)])
        self.blur = Blur()
        self.mu = EqualLinear(32, latent)
        self.logvar = EqualLinear(32, latent, bias_init=-1)

    def forward(self, x):
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
            x = self.blur(x)[:, :, ::2, ::2]
        x = x.mean([2, 3])
        return torch.cat([self.mu(x), self.logvar(x)], 1)


class StyleSynthesis(nn.Module):
    def __init__(self, latent, style_dim=24, ch=24, size=16, mixing=0.9):
        super().__init__()
        layers = [PixelNorm()]
        for i in range(3):
            layers.append(EqualLinear(latent if i == 0 else style_dim, style_dim, lr_mul=0.1, activation=True))
        self.style = nn.Sequential(*layers)
        self.mixing = mixing
        self.constant = nn.Parameter(torch.randn(1, ch, 4, 4))
        n = int(math.log2(size)) - 1
        self.convs = nn.ModuleList([ModulatedConv2d(ch, ch, 3, style_dim) for _ in range(n)])
        self.noises = nn.ModuleList([NoiseInjection() for _ in range(n)])
        self.to_rgbs = nn.ModuleList([ModulatedConv2d(ch, 3, 1, style_dim, demodulate=False) for _ in range(n)])
        self.blur = Blur()
        self.register_buffer("w_avg", torch.zeros(style_dim))

    def forward(self, z, truncation=1.0):
        w = self.style(z)
        if self.training:
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg, 0.98))
        elif truncation < 1:
            w = self.w_avg.lerp(w, truncation)
        inject = len(self.convs)
        w2 = w
        if self.training and random.random() < self.mixing:
            inject = random.randint(1, len(self.convs) - 1)
            w2 = w[torch.randperm(w.shape[0], device=w.device)]
        out = self.constant.repeat(w.shape[0], 1, 1, 1)
        skip = None
        for i, (conv, noise, to_rgb) in enumerate(zip(self.convs, self.noises, self.to_rgbs, strict=True)):
            style = w if i < inject else w2
            if i > 0:
                out = self.blur(F.interpolate(out, scale_factor=2))
            out = F.leaky_relu(noise(conv(out, style)), 0.2)
            rgb = to_rgb(out, style)
            if skip is not None:
                rgb = rgb + F.interpolate(skip, scale_factor=2, mode="bilinear", align_corners=False)
            skip = rgb
        return skip


def stylegan_synthesis() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Modulated convs as groups, noise injection, w_avg copied in forward, style mixing; stylegan2-pytorch."""
    return StyleEncoder(16), StyleSynthesis(16), 16, (3, 16, 16)
