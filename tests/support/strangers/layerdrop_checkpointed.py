"""A model as strangers write them; see layerdrop_checkpointed at the end."""

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import checkpoint as cp


def bias_gelu(bias: Tensor, y: Tensor) -> Tensor:
    x = bias + y
    return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))


class SinusoidalPositionalEmbedding:
    """Not a module: tables are made on demand and cached."""

    _cache: ClassVar[dict] = {}

    @classmethod
    def get(cls, n, dim, like):
        key = (n, dim, like.dtype, like.device)
        if key not in cls._cache:
            pos = torch.arange(n, dtype=like.dtype, device=like.device)[:, None]
            div = torch.exp(torch.arange(0, dim, 2, dtype=like.dtype, device=like.device) * -(math.log(10000.0) / dim))
            table = torch.zeros(n, dim, dtype=like.dtype, device=like.device)
            table[:, 0::2], table[:, 1::2] = torch.sin(pos * div), torch.cos(pos * div)
            cls._cache[key] = table
        return cls._cache[key]


class FairseqLayer(nn.Module):
    def __init__(self, dim, heads, dropout):
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)
        self.fc1 = nn.Linear(dim, 2 * dim, bias=False)
        self.fc1_bias = nn.Parameter(torch.zeros(2 * dim))
        self.fc2 = nn.Linear(2 * dim, dim)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.dropout_module = nn.Dropout(dropout)
        self.activation_fn = torch.jit.script(bias_gelu)

    def forward(self, x, mask=None):
        B, T, C = x.shape
        residual = x
        x = self.self_attn_layer_norm(x)
        q, k, v = self.in_proj(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        p = self.dropout_module.p if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        x = residual + self.dropout_module(self.out_proj(x.transpose(1, 2).reshape(B, T, C)))
        residual = x
        x = self.activation_fn(self.fc1_bias, self.fc1(self.final_layer_norm(x)))
        return residual + self.dropout_module(self.fc2(x))


class FairseqEncoder(nn.Module):
    def __init__(self, dim=32, layers=4, layerdrop=0.25, latent=12):
        super().__init__()
        self.embed = nn.Linear(3 * 8, dim)  # a row is a token
        self.layers = nn.ModuleList([FairseqLayer(dim, 4, 0.2) for _ in range(layers)])
        self.layerdrop = layerdrop
        self.num_updates = 0
        self.pool = nn.Linear(dim, 1)
        self.out = nn.Linear(dim, 2 * latent)

    def set_num_updates(self, num_updates):
        self.num_updates = num_updates
        for m in self.modules():
            if isinstance(m, nn.Dropout):
                m.p = 0.2 * 0.98**num_updates

    def forward(self, x):
        if self.training:
            self.set_num_updates(self.num_updates + 1)
        x = x.permute(0, 2, 3, 1).reshape(x.shape[0], 8, -1)
        x = self.embed(x)
        x = x + SinusoidalPositionalEmbedding.get(x.size(1), x.size(2), x)
        for layer in self.layers:
            # add LayerDrop (see https://arxiv.org/abs/1909.11556 for description)
            dropout_probability = np.random.random()
            if not self.training or dropout_probability > self.layerdrop:
                x = cp.checkpoint(layer, x, use_reentrant=True) if x.requires_grad else layer(x)
        weights = self.pool(x).softmax(dim=1)
        return self.out((weights * x).sum(dim=1))


class FairseqDecoder(nn.Module):
    def __init__(self, dim=32, latent=12):
        super().__init__()
        self.memory = nn.Linear(latent, 4 * dim)
        self.query = nn.Embedding(8, dim)
        layer = nn.TransformerDecoderLayer(dim, 4, dim_feedforward=48, dropout=0.1, batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, num_layers=2)
        self.row = nn.Linear(dim, 3 * 8)
        self.register_buffer("positions", torch.arange(8), persistent=False)
        self.register_buffer("causal", torch.triu(torch.ones(8, 8, dtype=torch.bool), diagonal=1))

    def forward(self, z):
        memory = self.memory(z).view(z.size(0), 4, -1)
        tgt = self.query(self.positions).unsqueeze(0).repeat(z.size(0), 1, 1)
        h = self.decoder(tgt, memory, tgt_mask=self.causal)
        return self.row(h).view(-1, 8, 8, 3).permute(0, 3, 1, 2)


def layerdrop_checkpointed() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """LayerDrop by numpy, reentrant checkpoint, Dropout.p annealed, jit.script, cached tables; fairseq."""
    return FairseqEncoder(), FairseqDecoder(), 12, (3, 8, 8)
