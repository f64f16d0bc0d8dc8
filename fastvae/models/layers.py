"""Layers by what they compute."""

from torch import nn
from torch.nn.modules.conv import _ConvNd

MATMUL_LAYERS = (nn.Linear, _ConvNd)
"""The layers whose forward is a matrix product: autocast runs these in low precision."""
