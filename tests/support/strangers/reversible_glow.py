"""A model as strangers write them; see reversible_glow at the end."""

import torch
import torch.nn.functional as F
from torch import nn


class ActNorm(nn.Module):
    def __init__(self, in_channel):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, in_channel, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, in_channel, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def initialize(self, input):
        with torch.no_grad():
            flatten = input.permute(1, 0, 2, 3).contiguous().view(input.shape[1], -1)
            mean = flatten.mean(1).unsqueeze(1).unsqueeze(2).unsqueeze(3).permute(1, 0, 2, 3)
            std = flatten.std(1).unsqueeze(1).unsqueeze(2).unsqueeze(3).permute(1, 0, 2, 3)
            self.loc.data.copy_(-mean)
            self.scale.data.copy_(1 / (std + 1e-2))

    def forward(self, input):
        if self.initialized.item() == 0:
            self.initialize(input)
            self.initialized.fill_(1)
        return self.scale * (input + self.loc)


class InvConv2d(nn.Module):
    def __init__(self, in_channel):
        super().__init__()
        weight = torch.randn(in_channel, in_channel)
        q, _ = torch.linalg.qr(weight)
        self.weight = nn.Parameter(q.unsqueeze(2).unsqueeze(3))

    def forward(self, input):
        self.log_det = torch.slogdet(self.weight.squeeze())[1]
        return F.conv2d(input, self.weight)


class ReversibleBlock(nn.Module):
    """After lucidrains: y1 = x1 + f(x2), y2 = x2 + g(y1); backward works the inputs out again."""

    def __init__(self, f, g):
        super().__init__()
        self.f, self.g = f, g

    def forward(self, x):
        x1, x2 = torch.chunk(x, 2, dim=1)
        with torch.no_grad():
            y1 = x1 + self.f(x2)
            y2 = x2 + self.g(y1)
        return torch.cat([y1, y2], dim=1)

    def backward_pass(self, y, dy):
        y1, y2 = torch.chunk(y, 2, dim=1)
        dy1, dy2 = torch.chunk(dy, 2, dim=1)
        with torch.enable_grad():
            y1.requires_grad = True
            gy1 = self.g(y1)
            torch.autograd.backward(gy1, dy2)
        with torch.no_grad():
            x2 = y2 - gy1
            del y2, gy1
            dx1 = dy1 + y1.grad
            y1.grad = None
        with torch.enable_grad():
            x2.requires_grad = True
            fx2 = self.f(x2)
            torch.autograd.backward(fx2, dx1, retain_graph=True)
        with torch.no_grad():
            x1 = y1 - fx2
            del y1, fx2
            dx2 = dy2 + x2.grad
            x2.grad = None
            x = torch.cat([x1, x2.detach()], dim=1)
            dx = torch.cat([dx1, dx2], dim=1)
        return x, dx


class _ReversibleFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, blocks):
        for block in blocks:
            x = block(x)
        ctx.y = x.detach()
        ctx.blocks = blocks
        return x

    @staticmethod
    def backward(ctx, dy):
        y = ctx.y
        for block in ctx.blocks[::-1]:
            y, dy = block.backward_pass(y, dy)
        return dy, None


def coupling(c, hidden=16):
    net = nn.Sequential(
        nn.Conv2d(c, hidden, 3, padding=1), nn.GroupNorm(4, hidden), nn.SiLU(), nn.Conv2d(hidden, c, 3, padding=1)
    )
    nn.init.normal_(net[-1].weight, std=0.05)
    return net


def squeeze2d(x):
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, c * 4, h // 2, w // 2)


def unsqueeze2d(x):
    b, c, h, w = x.shape
    return x.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, h * 2, w * 2)


class ReversibleEncoder(nn.Module):
    def __init__(self, width=16, latents=4, depth=3):
        super().__init__()
        self.lift = nn.Conv2d(4, width, 1)
        self.act_norm = ActNorm(width)
        self.inv_conv = InvConv2d(width)
        self.blocks = nn.ModuleList([ReversibleBlock(coupling(width // 2), coupling(width // 2)) for _ in range(depth)])
        self.out = nn.Conv2d(width, 2 * latents, 1)

    def forward(self, x):
        h = self.inv_conv(self.act_norm(self.lift(squeeze2d(x))))
        h = _ReversibleFunction.apply(h, self.blocks)
        return self.out(h)


class ReversibleDecoder(nn.Module):
    def __init__(self, width=16, latents=4, depth=2):
        super().__init__()
        self.lift = nn.Conv2d(latents, width, 1)
        self.blocks = nn.ModuleList([ReversibleBlock(coupling(width // 2), coupling(width // 2)) for _ in range(depth)])
        self.act_norm = ActNorm(width)
        self.out = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, z):
        h = _ReversibleFunction.apply(self.lift(z), self.blocks)
        return unsqueeze2d(self.out(self.act_norm(h)))


def reversible_glow() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """ActNorm set by the first batch, Function whose backward fills parameters' .grad; Glow, reformer-pytorch."""
    return ReversibleEncoder(), ReversibleDecoder(), (4, 4, 4), (1, 8, 8)
