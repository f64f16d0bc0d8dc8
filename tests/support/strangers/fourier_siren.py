"""A model as strangers write them; see fourier_siren at the end."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class SpectralConv2d(nn.Module):
    """Fourier layer: FFT, linear transform of the low modes, inverse FFT."""

    def __init__(self, in_channels, out_channels, modes1, modes2):
        super().__init__()
        self.out_channels = out_channels
        self.modes1, self.modes2 = modes1, modes2
        scale = 1 / (in_channels * out_channels)
        # real pairs: DDP has trouble with complex parameters
        self.weights1 = nn.Parameter(scale * torch.rand(in_channels, out_channels, modes1, modes2, 2))
        self.weights2 = nn.Parameter(scale * torch.rand(in_channels, out_channels, modes1, modes2, 2))
        shift = torch.fft.fftfreq(modes1)[:, None] + torch.fft.fftfreq(modes2)[None, :]
        self.register_buffer("phase", torch.exp(2j * math.pi * shift))

    def compl_mul2d(self, input, weights):
        # (batch, in_channel, x,y ), (in_channel, out_channel, x,y) -> (batch, out_channel, x,y)
        return torch.einsum("bixy,ioxy->boxy", input, torch.view_as_complex(weights))

    def forward(self, x):
        batchsize = x.shape[0]
        x_ft = torch.fft.rfft2(x)
        out_ft = torch.zeros(
            batchsize, self.out_channels, x.size(-2), x.size(-1) // 2 + 1, dtype=x_ft.dtype, device=x.device
        )
        low = x_ft[:, :, : self.modes1, : self.modes2] * self.phase
        out_ft[:, :, : self.modes1, : self.modes2] = self.compl_mul2d(low, self.weights1)
        out_ft[:, :, -self.modes1 :, : self.modes2] = self.compl_mul2d(
            x_ft[:, :, -self.modes1 :, : self.modes2], self.weights2
        )
        return torch.fft.irfft2(out_ft, s=(x.size(-2), x.size(-1)))


class FNOEncoder(nn.Module):
    def __init__(self, width=12, modes=4, latent=16):
        super().__init__()
        self.fc0 = nn.Linear(3, width)  # input channel is 3: (a(x, y), x, y)
        self.conv0 = SpectralConv2d(width, width, modes, modes)
        self.conv1 = SpectralConv2d(width, width, modes, modes)
        self.w0 = nn.Conv2d(width, width, 1)
        self.w1 = nn.Conv2d(width, width, 1)
        self.norm = nn.InstanceNorm2d(width)
        self.fc1 = nn.Linear(2 * width, 2 * latent)

    def get_grid(self, shape, device):
        batchsize, size_x, size_y = shape[0], shape[1], shape[2]
        gridx = torch.tensor(np.linspace(0, 1, size_x), dtype=torch.float)
        gridx = gridx.reshape(1, size_x, 1, 1).repeat([batchsize, 1, size_y, 1])
        gridy = torch.tensor(np.linspace(0, 1, size_y), dtype=torch.float)
        gridy = gridy.reshape(1, 1, size_y, 1).repeat([batchsize, size_x, 1, 1])
        return torch.cat((gridx, gridy), dim=-1).to(device)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        grid = self.get_grid(x.shape, x.device)
        x = torch.cat((x, grid), dim=-1)
        x = self.fc0(x).permute(0, 3, 1, 2)
        x = F.gelu(self.norm(self.conv0(self.norm(x))) + self.w0(x))
        x = self.norm(self.conv1(x)) + self.w1(x)
        power = torch.fft.fft2(x, norm="ortho").abs().pow(2)[:, :, 0, 1:5].sum(-1)
        return self.fc1(torch.cat([x.amax(dim=(2, 3)), torch.log1p(power)], dim=1))


class Sine(nn.Module):
    def __init__(self, w0=1.0):
        super().__init__()
        self.w0 = w0

    def forward(self, x):
        return torch.sin(self.w0 * x)


class FiLMSiren(nn.Module):
    """Coordinates to pixels; z sets each layer's frequency and phase."""

    def __init__(self, latent=16, hidden=24, layers=3, size=16, w0=6.0):
        super().__init__()
        self.size = size
        self.register_buffer("B", torch.randn(2, hidden // 2) * 2.0)
        self.net = nn.ModuleList([nn.Linear(hidden, hidden) for _ in range(layers)])
        for i, layer in enumerate(self.net):
            bound = 1 / hidden if i == 0 else math.sqrt(6 / hidden) / w0
            nn.init.uniform_(layer.weight, -bound, bound)
        self.act = Sine(w0)
        self.mapping = nn.Sequential(nn.Linear(latent, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2 * layers * hidden))
        self.last = nn.Linear(hidden, 1)

    def forward(self, z):
        axis = torch.linspace(-1, 1, self.size, device=z.device, dtype=z.dtype)
        coords = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).view(-1, 2)
        proj = coords @ self.B
        h = torch.cat([proj.sin(), proj.cos()], dim=-1).expand(z.size(0), -1, -1)
        films = self.mapping(z).chunk(2 * len(self.net), dim=-1)
        for layer, gamma, beta in zip(self.net, films[::2], films[1::2], strict=True):
            h = self.act((1 + gamma[:, None]) * layer(h) + beta[:, None])
        out = self.last(h)  # (B, HW, 1)
        return out.transpose(1, 2).unflatten(-1, (self.size, self.size))


def fourier_siren() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """torch.fft, complex64 buffer (left by .double()), real pairs viewed as complex, FiLM, grids; FNO, pi-GAN."""
    return FNOEncoder(), FiLMSiren(), 16, (1, 16, 16)
