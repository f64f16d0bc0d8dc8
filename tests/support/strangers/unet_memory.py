"""A model as strangers write them; see unet_memory at the end."""

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SKIPS: list[Tensor] = []  # encoder pushes, decoder pops


class DoubleConv(nn.Module):
    """(convolution => [BN] => ReLU) * 2"""

    def __init__(self, in_channels, out_channels, mid_channels=None):
        super().__init__()
        if not mid_channels:
            mid_channels = out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.double_conv(x)


class UNetEncoder(nn.Module):
    def __init__(self, latent=16, K=48, feat=16):
        super().__init__()
        self.inc = DoubleConv(3, 8)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(8, 16))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(16, 32))
        self.to_feat = nn.Linear(32, feat)
        self.stats = nn.Linear(2 * feat, 2 * latent)
        # a queue of past features, as in MoCo
        self.K = K
        self.register_buffer("queue", torch.zeros(K, feat))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.register_buffer("filled", torch.tensor(0))

    @torch.no_grad()
    def _dequeue_and_enqueue(self, keys):
        batch_size = keys.shape[0]
        ptr = int(self.queue_ptr)
        where = (ptr + torch.arange(batch_size, device=keys.device)) % self.K
        self.queue[where] = keys
        self.queue_ptr[0] = (ptr + batch_size) % self.K  # move pointer
        self.filled += batch_size

    def forward(self, x):
        _SKIPS.clear()
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        _SKIPS.extend([x1, x2])
        f = self.to_feat(x3.mean(dim=(-2, -1)))
        q = F.normalize(f, dim=1)
        if self.filled >= self.K:
            # nearest neighbour among what was seen before
            sim = q.detach() @ self.queue.clone().t()
            neighbour = self.queue[sim.argmax(dim=1)]
        else:
            neighbour = torch.zeros_like(q)
        if self.training:
            self._dequeue_and_enqueue(q.detach())
        return self.stats(torch.cat([f, neighbour], dim=1))


class UNetDecoder(nn.Module):
    def __init__(self, latent=16, drop_skip=0.5):
        super().__init__()
        self.fc = nn.Linear(latent, 32 * 4 * 4)
        self.up1 = nn.ConvTranspose2d(32, 16, kernel_size=2, stride=2)
        self.conv1 = DoubleConv(32, 16)
        self.up2 = nn.ConvTranspose2d(16, 8, kernel_size=2, stride=2)
        self.conv2 = DoubleConv(16, 8)
        self.outc = nn.Conv2d(8, 3, kernel_size=1)
        self.drop_skip = drop_skip

    def merge(self, x):
        skip = _SKIPS.pop() if _SKIPS else None
        if skip is None or skip.shape[0] != x.shape[0] or not self.training or random.random() < self.drop_skip:
            skip = torch.zeros_like(x)
        return torch.cat([skip, x], dim=1)

    def forward(self, z):
        x = F.relu(self.fc(z)).view(-1, 32, 4, 4)
        x = self.conv1(self.merge(self.up1(x)))
        x = self.conv2(self.merge(self.up2(x)))
        return self.outc(x)


def unet_memory() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Skips through a module-level list, dropped by python's random, queue with an int pointer; U-Net, MoCo."""
    _SKIPS.clear()
    return UNetEncoder(), UNetDecoder(), 16, (3, 16, 16)
