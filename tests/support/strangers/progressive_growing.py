"""A model as strangers write them; see progressive_growing at the end."""

import torch
import torch.nn.functional as F
from torch import nn


class GrowSchedule:
    """Shared by both networks: which resolution, and how far it is faded in."""

    def __init__(self, steps_per_phase=4, depths=3):
        self.step = 0
        self.steps_per_phase = steps_per_phase
        self.depths = depths

    def tick(self):
        self.step += 1

    @property
    def depth(self):
        return min(self.step // (2 * self.steps_per_phase), self.depths - 1)

    @property
    def alpha(self):
        if self.depth == 0:
            return 1.0
        return min(1.0, (self.step - 2 * self.depth * self.steps_per_phase + 1) / self.steps_per_phase)


class MinibatchStd(nn.Module):
    def forward(self, x):
        size = list(x.size())
        size[1] = 1
        std = torch.std(x, dim=0, unbiased=False)
        mean = torch.mean(std)
        return torch.cat((x, mean.repeat(size)), dim=1)


class ProgressiveEncoder(nn.Module):
    def __init__(self, schedule, ch=(24, 16, 8), latent=16):
        super().__init__()
        self.schedule = schedule
        self.from_rgb = nn.ModuleList([nn.Conv2d(3, c, 1) for c in ch])
        self.progression = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(ch[i], ch[i - 1], 3, padding=1), nn.LeakyReLU(0.2)) for i in range(1, len(ch))]
        )
        self.last = nn.Sequential(
            MinibatchStd(), nn.Conv2d(ch[0] + 1, ch[0], 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(ch[0], ch[0], 4)
        )
        self.mu = nn.Linear(ch[0], latent)
        self.logvar = nn.Linear(ch[0], latent)

    def forward(self, x):
        depth, alpha = self.schedule.depth, self.schedule.alpha
        if self.training:
            self.schedule.tick()
        x = F.adaptive_avg_pool2d(x, 4 * 2**depth)
        h = F.leaky_relu(self.from_rgb[depth](x), 0.2)
        for i in range(depth, 0, -1):
            h = F.avg_pool2d(self.progression[i - 1](h), 2)
            if i == depth and 0 <= alpha < 1:
                skip_rgb = self.from_rgb[i - 1](F.avg_pool2d(x, 2))
                h = (1 - alpha) * F.leaky_relu(skip_rgb, 0.2) + alpha * h
        h = self.last(h).squeeze(2).squeeze(2)
        return torch.cat([self.mu(h), self.logvar(h)], dim=1)


class ProgressiveDecoder(nn.Module):
    def __init__(self, schedule, ch=(24, 16, 8), latent=16, size=16):
        super().__init__()
        self.schedule = schedule
        self.size = size
        self.input_layer = nn.Sequential(nn.ConvTranspose2d(latent, ch[0], 4, 1, 0), nn.LeakyReLU(0.1))
        self.progression = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(ch[i - 1], ch[i], 3, padding=1), nn.GroupNorm(1, ch[i]), nn.LeakyReLU(0.1))
                for i in range(1, len(ch))
            ]
        )
        self.to_rgb = nn.ModuleList([nn.Conv2d(c, 3, 1) for c in ch])

    def forward(self, z):
        depth, alpha = self.schedule.depth, self.schedule.alpha
        out = self.input_layer(z.view(z.shape[0], -1, 1, 1))
        prev = None
        for i in range(depth):
            prev = F.interpolate(out, scale_factor=2, mode="nearest")
            out = self.progression[i](prev)
        img = self.to_rgb[depth](out)
        if prev is not None and alpha < 1:
            img = (1 - alpha) * self.to_rgb[depth - 1](prev) + alpha * img
        if img.shape[-1] != self.size:
            img = F.interpolate(img, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return img


def progressive_growing() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Layers join after 8 steps and fade in, python schedule shared by both nets, minibatch std; progressive GANs."""
    schedule = GrowSchedule()
    return ProgressiveEncoder(schedule), ProgressiveDecoder(schedule), 16, (3, 16, 16)
