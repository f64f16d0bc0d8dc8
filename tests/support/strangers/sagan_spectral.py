"""A model as strangers write them; see sagan_spectral at the end."""

import torch
import torch.nn.functional as F
from torch import nn


def snconv2d(eps=1e-12, **kwargs):
    return nn.utils.spectral_norm(nn.Conv2d(**kwargs), eps=eps)


class SelfAttn(nn.Module):
    """SAGAN's attention, keys and values pooled."""

    def __init__(self, in_channels):
        super().__init__()
        self.in_channels = in_channels
        self.theta = snconv2d(in_channels=in_channels, out_channels=in_channels // 8, kernel_size=1, bias=False)
        self.phi = snconv2d(in_channels=in_channels, out_channels=in_channels // 8, kernel_size=1, bias=False)
        self.g = snconv2d(in_channels=in_channels, out_channels=in_channels // 2, kernel_size=1, bias=False)
        self.o = snconv2d(in_channels=in_channels // 2, out_channels=in_channels, kernel_size=1, bias=False)
        self.sigma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        _, ch, h, w = x.size()
        theta = self.theta(x).view(-1, ch // 8, h * w)
        phi = F.max_pool2d(self.phi(x), 2).view(-1, ch // 8, h * w // 4)
        attn = torch.bmm(theta.permute(0, 2, 1), phi).softmax(dim=-1)
        g = F.max_pool2d(self.g(x), 2).view(-1, ch // 2, h * w // 4)
        attn_g = torch.bmm(g, attn.permute(0, 2, 1)).view(-1, ch // 2, h, w)
        return x + self.sigma * self.o(attn_g)


class SNDown(nn.Module):
    def __init__(self, cin, cout, downsample=True):
        super().__init__()
        self.downsample = downsample
        self.conv1 = snconv2d(in_channels=cin, out_channels=cout, kernel_size=3, padding=1)
        self.conv2 = snconv2d(in_channels=cout, out_channels=cout, kernel_size=3, padding=1)
        self.conv0 = snconv2d(in_channels=cin, out_channels=cout, kernel_size=1)
        nn.init.xavier_uniform_(self.conv0.weight_orig)

    def forward(self, x):
        x0 = x
        x = F.relu(x)
        x = self.conv2(F.relu(self.conv1(x), inplace=True))
        x0 = self.conv0(x0)
        if self.downsample:
            x, x0 = F.avg_pool2d(x, 2), F.avg_pool2d(x0, 2)
        return x + x0


class SAGANEncoder(nn.Module):
    def __init__(self, latent):
        super().__init__()
        self.blocks = nn.Sequential(SNDown(3, 16), SelfAttn(16), SNDown(16, 32), SNDown(32, 32, downsample=False))
        self.linear = nn.utils.spectral_norm(nn.Linear(32, 2 * latent))

    def forward(self, x):
        h = F.relu(self.blocks(x))
        return self.linear(h.sum((2, 3)) / 4)


class ConditionalBatchNorm2d(nn.Module):
    def __init__(self, num_features, cond):
        super().__init__()
        self.bn = nn.BatchNorm2d(num_features, affine=False, momentum=0.001)
        self.gamma_embed = nn.utils.parametrizations.spectral_norm(nn.Linear(cond, num_features, bias=False))
        self.beta_embed = nn.utils.parametrizations.spectral_norm(nn.Linear(cond, num_features, bias=False))

    def forward(self, x, c):
        gamma = self.gamma_embed(c) + 1
        beta = self.beta_embed(c)
        return gamma[..., None, None] * self.bn(x) + beta[..., None, None]


class BigGANBlock(nn.Module):
    def __init__(self, cin, cout, cond):
        super().__init__()
        sn = nn.utils.parametrizations.spectral_norm
        self.cbn1 = ConditionalBatchNorm2d(cin, cond)
        self.cbn2 = ConditionalBatchNorm2d(cout, cond)
        self.conv1 = sn(nn.Conv2d(cin, cout, 3, padding=1), n_power_iterations=2)
        self.conv2 = sn(nn.Conv2d(cout, cout, 3, padding=1))
        self.shortcut = sn(nn.Conv2d(cin, cout, 1))

    def forward(self, x, c):
        h = F.interpolate(F.relu(self.cbn1(x, c)), scale_factor=2)
        h = self.conv2(F.relu(self.cbn2(self.conv1(h), c)))
        return h + self.shortcut(F.interpolate(x, scale_factor=2))


class BigGANDecoder(nn.Module):
    def __init__(self, chunk=6, ch=32):
        super().__init__()
        self.chunk = chunk
        self.linear = nn.Linear(chunk, ch * 16)
        self.blocks = nn.ModuleList([BigGANBlock(ch, ch // 2, chunk), BigGANBlock(ch // 2, ch // 2, chunk)])
        self.out = nn.Sequential(nn.BatchNorm2d(ch // 2), nn.ReLU(True), nn.Conv2d(ch // 2, 3, 3, padding=1))

    def forward(self, z):
        z, *ys = torch.split(z, self.chunk, dim=1)
        h = self.linear(z).view(z.size(0), -1, 4, 4)
        for block, y in zip(self.blocks, ys, strict=True):
            h = block(h, y)
        return self.out(h)


def sagan_spectral() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Both spectral norms, conditional BatchNorm, attention behind a zero gate, hierarchical z; BigGAN-PyTorch."""
    return SAGANEncoder(18), BigGANDecoder(), 18, (3, 16, 16)
