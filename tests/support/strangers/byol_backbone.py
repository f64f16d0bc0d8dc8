"""A model as strangers write them; see byol_backbone at the end."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """As in torchvision: statistics and affine parameters are fixed."""

    def __init__(self, n: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(n))
        self.register_buffer("bias", torch.zeros(n))
        self.register_buffer("running_mean", torch.full((n,), 0.1))
        self.register_buffer("running_var", torch.full((n,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.reshape(1, -1, 1, 1)
        b = self.bias.reshape(1, -1, 1, 1)
        scale = w * (self.running_var.reshape(1, -1, 1, 1) + self.eps).rsqrt()
        return x * scale + (b - self.running_mean.reshape(1, -1, 1, 1) * scale)


def make_trunk() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        FrozenBatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
    )


class BYOLEncoder(nn.Module):
    def __init__(self, latent: int = 12, base_m: float = 0.9, total_steps: int = 100) -> None:
        super().__init__()
        self.online = make_trunk()
        self.target = make_trunk()
        self.target.load_state_dict(self.online.state_dict())
        for p in self.target.parameters():
            p.requires_grad_(False)
        self.base_m, self.total_steps, self.k = base_m, total_steps, 0
        self.features: dict[str, Tensor] = {}
        for name in ("2", "5"):
            self.online.get_submodule(name).register_forward_hook(partial(self._save, name))
        self.head = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(48), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2 * latent)
        )

    def _save(self, name, module, args, output):
        self.features[name] = output

    @torch.no_grad()
    def _momentum_update(self) -> None:
        m = 1 - (1 - self.base_m) * (math.cos(math.pi * self.k / self.total_steps) + 1) / 2
        self.k += 1
        for po, pt in zip(self.online.parameters(), self.target.parameters(), strict=True):
            pt.data = pt.data * m + po.data * (1.0 - m)

    def train(self, mode: bool = True):
        super().train(mode)
        self.target.eval()
        for module in self.online.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.features.clear()
        self.online(x)
        if self.training:
            self._momentum_update()
        with torch.no_grad():
            t = self.target(x)
        f1, f2 = self.features["2"], self.features["5"]
        return self.head(torch.cat([F.adaptive_avg_pool2d(f1, 4), f2, t], dim=1))


def icnr_(weight: Tensor, upscale: int = 2) -> Tensor:
    sub = torch.empty(weight.shape[0] // upscale**2, *weight.shape[1:])
    nn.init.kaiming_normal_(sub)
    with torch.no_grad():
        return weight.copy_(sub.repeat_interleave(upscale**2, dim=0))


class PixelShuffleDecoder(nn.Module):
    def __init__(self, latent: int = 12, width: int = 24) -> None:
        super().__init__()
        self.project = nn.Linear(latent, width * 4 * 4)
        self.unflatten = nn.Unflatten(1, (width, 4, 4))
        layers: list[nn.Module] = []
        for _ in range(2):
            conv = nn.Conv2d(width, 4 * width, 3, padding=1)
            icnr_(conv.weight)
            layers += [conv, nn.PixelShuffle(2), nn.PReLU(width)]
        self.body = nn.Sequential(*layers)
        self.tail = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.constant_(self.tail.bias, -0.5)
        self.tail.bias.requires_grad = False  # the data's mean, fixed

    def forward(self, z: Tensor) -> Tensor:
        return self.tail(self.body(self.unflatten(self.project(z))))


def byol_backbone() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """EMA target net by .data in forward, feature hooks, train() keeps BN in eval, lazy head, frozen bias; BYOL."""
    encoder = BYOLEncoder()
    encoder.eval()
    encoder(torch.rand(2, 3, 16, 16))  # lazy layers
    encoder.train()
    return encoder, PixelShuffleDecoder(), 12, (3, 16, 16)
