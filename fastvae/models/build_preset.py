"""A preset's network, with freshly drawn weights."""

from collections.abc import Sequence

from torch import nn

from .conv import conv_vae
from .ladder import ladder_vae
from .mlp import mlp_vae
from .presets import Preset
from .vae import VAE


def build(preset: Preset, shape: Sequence[int], latent_dim: int | None = None, width: int | None = None) -> VAE:
    """Build the preset's VAE for pictures of ``shape`` (C, H, W), with freshly drawn weights.

    Raises ValueError for a shape that its network cannot take.

    >>> from fastvae.models import PRESETS
    >>> vae = build(PRESETS["leaky"], (1, 28, 28))
    >>> sum(parameter.numel() for parameter in vae.parameters())
    1189984
    """
    latent_dim = preset.latent_dim if latent_dim is None else latent_dim
    if preset.network != "mlp":
        width = preset.width if width is None else width
        assert width is not None
        if preset.network == "ladder":
            return ladder_vae(shape, width, latent_dim, preset.likelihood)
        blocks = 1 if preset.network == "resnet" else 0
        return conv_vae(shape, width, latent_dim, preset.likelihood, blocks=blocks, flat=preset.flat)
    vae = mlp_vae(
        shape,
        preset.hidden,
        latent_dim,
        activation=preset.activation,
        likelihood=preset.likelihood,
        packed=preset.packed,
        sigmoid_mean=preset.likelihood == "gaussian",
    )
    if preset.glorot:
        for module in vae.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
    return vae
