"""A model as strangers write them; see nvae_cells at the end."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


class SwishFn(torch.autograd.Function):
    """Saves the input alone, as in EfficientNet-PyTorch."""

    @staticmethod
    def forward(ctx, i):
        result = i * torch.sigmoid(i)
        ctx.save_for_backward(i)
        return result

    @staticmethod
    def backward(ctx, grad_output):
        (i,) = ctx.saved_tensors
        sigmoid_i = torch.sigmoid(i)
        return grad_output * (sigmoid_i * (1 + i * (1 - sigmoid_i)))


class MemoryEfficientSwish(nn.Module):
    def forward(self, x):
        return SwishFn.apply(x)


class NVAESqueezeExcite(nn.Module):
    def __init__(self, c, r=4):
        super().__init__()
        hidden = max(c // r, 4)
        self.se = nn.Sequential(nn.Linear(c, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, c), nn.Sigmoid())

    def forward(self, x):
        se = torch.mean(x, dim=[2, 3])
        se = self.se(se)
        return x * se.view(se.size(0), -1, 1, 1)


def wn_conv(*args, **kwargs):
    return nn.utils.weight_norm(nn.Conv2d(*args, **kwargs))


class NVAECell(nn.Module):
    """BN - 1x1 - BN - swish - 5x5 depthwise - BN - swish - 1x1 - BN - SE, times 0.1."""

    def __init__(self, c, ex=3):
        super().__init__()
        h = c * ex
        bn = partial(nn.BatchNorm2d, eps=1e-5, momentum=0.05)
        self.ops = nn.ModuleList(
            [
                bn(c),
                nn.Conv2d(c, h, 1, bias=False),
                bn(h),
                MemoryEfficientSwish(),
                nn.Conv2d(h, h, 5, padding=2, groups=h, bias=False),
                bn(h),
                MemoryEfficientSwish(),
                nn.Conv2d(h, c, 1, bias=False),
                bn(c),
                NVAESqueezeExcite(c),
            ]
        )

    def forward(self, s):
        skip = s
        for op in self.ops:
            s = op(s)
        return skip + 0.1 * s


class NVAETower(nn.Module):
    def __init__(self, c=16, latents=4):
        super().__init__()
        self.stem = wn_conv(1, c, 3, padding=1)
        self.pre = nn.ModuleList([NVAECell(c) for _ in range(2)])
        self.downs = nn.ModuleList([wn_conv(c, c, 2, stride=2) for _ in range(2)])
        self.enc0 = nn.Sequential(nn.ELU(), wn_conv(c, c, 1), nn.ELU())
        # Two groups of latents, each with its own sampler for mu and log sigma
        self.samplers = nn.ModuleDict({f"group_{g}": wn_conv(c, 2 * latents, 3, padding=1) for g in range(2)})

    @staticmethod
    def soft_clamp5(x):
        return x.div(5.0).tanh_().mul(5.0)  # 5. * torch.tanh(x / 5.)

    def forward(self, x):
        s = self.stem(2 * x - 1.0)
        for cell, down in zip(self.pre, self.downs, strict=True):
            s = cell(s)
            s = down(s)
        s = self.enc0(s)
        mus, sigs = [], []
        for name, sampler in self.samplers.items():
            mu, log_sig = torch.chunk(sampler(s), 2, dim=1)
            mus.append(self.soft_clamp5(mu))
            sigs.append(self.soft_clamp5(log_sig) if name == "group_0" else log_sig.clamp(-5, 5))
        return torch.cat(mus + sigs, dim=1)


class NVAETopDown(nn.Module):
    def __init__(self, c=16, latents=4):
        super().__init__()
        self.latents = latents
        self.prior_ftr0 = nn.Parameter(torch.rand(size=(c, 4, 4)), requires_grad=True)
        self.combine = nn.ModuleList([wn_conv(c + latents, c, 1) for _ in range(2)])
        self.cells = nn.ModuleList([NVAECell(c, ex=2) for _ in range(2)])
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.skip = wn_conv(c, c, 1)
        self.image_conditional = nn.Sequential(nn.ELU(), wn_conv(c, 1, 3, padding=1))

    def forward(self, z):
        z0, z1 = z.split(self.latents, dim=1)
        s = self.prior_ftr0.unsqueeze(0).expand(z.size(0), -1, -1, -1)
        s = self.cells[0](self.combine[0](torch.cat([s, z0], dim=1)))
        early = s
        s = self.up(s)
        s = self.cells[1](self.combine[1](torch.cat([s, F.interpolate(z1, size=s.shape[2:])], dim=1)))
        s = self.up(s)
        s = s + F.interpolate(self.skip(early), size=s.shape[-2:], mode="nearest")
        return self.image_conditional(s)


def nvae_cells() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Old weight_norm, custom Function, squeeze-excite, two latent groups, decoder skip; NVlabs' NVAE."""
    return NVAETower(), NVAETopDown(), (8, 4, 4), (1, 16, 16)
