"""A model as strangers write them; see vit_masked at the end."""

import torch
from torch import Tensor, nn


def drop_path(x: Tensor, drop_prob: float = 0.0, training: bool = False, scale_by_keep: bool = True) -> Tensor:
    if drop_prob == 0.0 or not training:
        return x
    keep_prob = 1 - drop_prob
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    random_tensor = x.new_empty(shape).bernoulli_(keep_prob)
    if keep_prob > 0.0 and scale_by_keep:
        random_tensor.div_(keep_prob)
    return x * random_tensor


class DropPath(nn.Module):
    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.drop_prob, self.training)


class LayerScale(nn.Module):
    def __init__(self, dim: int, init_values: float = 1e-1, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace
        self.gamma = nn.Parameter(init_values * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.gamma) if self.inplace else x * self.gamma


class ViTBlock(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_ratio: float = 2.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.MultiheadAttention(dim, heads, dropout=0.1, batch_first=True)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(dim, int(dim * mlp_ratio)), nn.GELU(), nn.Linear(int(dim * mlp_ratio), dim), nn.Dropout(0.1)
        )
        self.ls2 = LayerScale(dim, inplace=True)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.attn_map: Tensor | None = None  # for visualisation

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        h, self.attn_map = self.attn(h, h, h)
        x = x + self.drop_path(self.ls1(h))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class MaskedViTEncoder(nn.Module):
    def __init__(self, pos_embed: nn.Parameter, dim: int, latent: int, depth: int = 3, patch: int = 4) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = pos_embed
        dpr = [r.item() for r in torch.linspace(0, 0.2, depth)]
        self.blocks = nn.ModuleList([ViTBlock(dim, 4, drop_path=dpr[i]) for i in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 2 * latent)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def random_masking(self, x: Tensor, mask_ratio: float) -> Tensor:
        N, L, D = x.shape
        len_keep = int(L * (1 - mask_ratio))
        noise = torch.rand(N, L, device=x.device)  # noise in [0, 1]
        ids_shuffle = torch.argsort(noise, dim=1)
        ids_keep = ids_shuffle[:, :len_keep]
        return torch.gather(x, dim=1, index=ids_keep.unsqueeze(-1).repeat(1, 1, D))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = x + self.pos_embed[:, 1:, :]
        if self.training:
            x = self.random_masking(x, 0.25)
        cls_token = self.cls_token + self.pos_embed[:, :1, :]
        x = torch.cat((cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        for blk in self.blocks:
            x = blk(x)
        return self.head(self.norm(x)[:, 0])


class MaskedViTDecoder(nn.Module):
    def __init__(self, pos_embed: nn.Parameter, dim: int, latent: int, depth: int = 2, patch: int = 4) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(latent, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = pos_embed  # the same as the encoder's
        self.blocks = nn.Sequential(*[ViTBlock(dim, 2) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.pred = nn.Linear(dim, patch**2 * 3)
        nn.init.normal_(self.mask_token, std=0.02)

    def unpatchify(self, x: Tensor) -> Tensor:
        p = self.patch
        h = w = int(x.shape[1] ** 0.5)
        assert h * w == x.shape[1]
        x = x.reshape(x.shape[0], h, w, p, p, 3)
        x = torch.einsum("nhwpqc->nchpwq", x)
        return x.reshape(x.shape[0], 3, h * p, w * p)

    def forward(self, z: Tensor) -> Tensor:
        cls = self.embed(z)[:, None]
        x = torch.cat([cls, self.mask_token.repeat(z.shape[0], self.pos_embed.shape[1] - 1, 1)], dim=1)
        x = self.norm(self.blocks(x + self.pos_embed))
        return self.unpatchify(self.pred(x)[:, 1:])


def vit_masked() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """MultiheadAttention with kept maps, DropPath, masking by argsort, pos_embed in both nets; timm and MAE."""
    pos_embed = nn.Parameter(torch.zeros(1, 17, 32))
    nn.init.trunc_normal_(pos_embed, std=0.02)
    return MaskedViTEncoder(pos_embed, 32, 24), MaskedViTDecoder(pos_embed, 32, 24), 24, (3, 16, 16)
