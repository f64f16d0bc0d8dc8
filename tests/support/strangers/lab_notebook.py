"""A model as strangers write them; see lab_notebook at the end."""

import logging
from collections import defaultdict
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

log = logging.getLogger(__name__)
HISTORY = defaultdict(list)


def log_stats(name, module, inp, out):
    HISTORY[name].append((out.mean().item(), out.std().item()))


class MaskedConv2d(nn.Conv2d):
    def __init__(self, mask_type, *args, **kwargs):
        super().__init__(*args, **kwargs)
        assert mask_type in {"A", "B"}
        self.register_buffer("mask", self.weight.data.clone())
        _, _, kH, kW = self.weight.size()
        self.mask.fill_(1)
        self.mask[:, :, kH // 2, kW // 2 + (mask_type == "B") :] = 0
        self.mask[:, :, kH // 2 + 1 :] = 0

    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)


class LabEncoder(nn.Module):
    def __init__(self, z_dim=6):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 4, 2, 1)
        self.conv2 = nn.Conv2d(8, 16, 4, 2, 1)
        self.fc = nn.Linear(64, 32)
        self.head = nn.Linear(32, z_dim * 2)
        for name in ("conv1", "conv2", "fc"):
            getattr(self, name).register_forward_hook(partial(log_stats, name))
        # the first two filters stay as they are
        mask = torch.ones(8, 1, 1, 1)
        mask[:2] = 0
        self.conv1.weight.register_hook(lambda g: g * mask.to(g))
        self.fc.register_full_backward_hook(lambda m, gi, go: tuple(None if g is None else g.clamp(-1, 1) for g in gi))
        self.activations = []

    def forward(self, x):
        self.activations = []
        h = F.elu(self.conv1(x))
        self.activations.append(h)
        h = F.elu(self.conv2(h))
        if h.requires_grad:
            h.retain_grad()  # to plot |grad| in the notebook
        self.activations.append(h)
        h = F.elu(self.fc(h.view(h.size(0), -1)))
        if torch.isnan(h).any():
            raise RuntimeError("nan in encoder")
        out = self.head(h)
        if out.requires_grad:
            out.register_hook(lambda g: g / g.norm().clamp(min=1.0))
        self.last = out
        if self.training and len(HISTORY["fc"]) % 10 == 0:
            log.debug("step %d: fc %.3f +- %.3f", len(HISTORY["fc"]), *HISTORY["fc"][-1])
        return out


class LabDecoder(nn.Module):
    def __init__(self, z_dim=6, nf=16):
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(z_dim, nf, 4), nn.ELU(), nn.ConvTranspose2d(nf, nf, 4, 2, 1), nn.ELU()
        )
        self.masked = nn.ModuleList([MaskedConv2d("A", nf, nf, 3, padding=1), MaskedConv2d("B", nf, nf, 3, padding=1)])
        self.out = nn.Conv2d(nf, 1, 1)

    def forward(self, z):
        x = self.net(z[:, :, None, None])
        for conv in self.masked:
            x = x + F.elu(conv(x))
        return self.out(x)


def lab_notebook() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Hooks on modules, parameters, tensors, .item() into a global history, weight.data *= mask; PixelCNN."""
    HISTORY.clear()
    return LabEncoder(), LabDecoder(), 6, (1, 8, 8)
