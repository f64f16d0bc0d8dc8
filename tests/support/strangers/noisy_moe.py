"""A model as strangers write them; see noisy_moe at the end."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MoE(nn.Module):
    """Noisy top-k gating; experts without a sample are not called."""

    def __init__(self, dim: int, hidden: int, num_experts: int = 6, k: int = 2) -> None:
        super().__init__()
        self.k = k
        self.num_experts = num_experts
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, hidden), nn.Mish(), nn.Linear(hidden, dim)) for _ in range(num_experts)
        )
        self.w_gate = nn.Parameter(torch.randn(dim, num_experts) * 0.1)
        self.w_noise = nn.Parameter(torch.zeros(dim, num_experts))
        self.register_buffer("usage", torch.full((num_experts,), 1.0 / num_experts))
        self.aux_loss: Tensor | float = 0.0

    @staticmethod
    def cv_squared(x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return torch.zeros((), device=x.device, dtype=x.dtype)
        return x.var() / (x.mean() ** 2 + 1e-10)

    def forward(self, x: Tensor) -> Tensor:
        logits = x @ self.w_gate
        if self.training:
            noise_stddev = F.softplus(x @ self.w_noise) + 1e-2
            logits = logits + torch.randn_like(logits) * noise_stddev
            logits = logits - 0.5 * (self.usage > 2.0 / self.num_experts)  # experts in demand are held back
        top, indices = logits.topk(self.k, dim=-1)
        gates = torch.zeros_like(logits).scatter(1, indices, top.softmax(-1))

        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            idx = gates[:, i].nonzero(as_tuple=True)[0]
            if idx.numel() == 0:
                continue
            out.index_add_(0, idx, expert(x[idx]) * gates[idx, i].unsqueeze(-1))

        if self.training:
            load = torch.bincount(indices.flatten(), minlength=self.num_experts)
            self.usage = 0.9 * self.usage + 0.1 * load / load.sum()
            self.aux_loss = self.cv_squared(gates.sum(0))
        return x + out


class MoEEncoder(nn.Module):
    def __init__(self, latent: int = 8, dim: int = 32) -> None:
        super().__init__()
        self.inp = nn.Sequential(nn.Flatten(), nn.Linear(64, dim))
        self.layers = nn.Sequential(nn.RMSNorm(dim), MoE(dim, 16), nn.RMSNorm(dim), MoE(dim, 16, num_experts=4, k=1))
        self.out = nn.Linear(dim, 2 * latent)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(self.inp(x)))


class MoEDecoder(nn.Module):
    def __init__(self, latent: int = 8, dim: int = 32) -> None:
        super().__init__()
        self.inp = nn.Linear(latent, dim)
        self.moe = MoE(dim, 24, num_experts=8, k=1)
        self.out = nn.Linear(dim, 64)
        self.spare = nn.Linear(dim, 64)  # for bright pictures only

    def forward(self, z: Tensor) -> Tensor:
        h = F.glu(torch.cat([self.moe(self.inp(z)), self.inp(z)], dim=-1), dim=-1)
        logits = self.out(h)
        if logits.mean() > 0:
            logits = logits + self.spare(h)
        return logits.reshape(z.shape[0], 1, 8, 8)


def noisy_moe() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Routing by nonzero(), experts skipped in some steps, rebound buffer, branch on logits.mean(); noisy top-k."""
    return MoEEncoder(), MoEDecoder(), 8, (1, 8, 8)
