"""The optimiser of a run."""

from typing import Any

import torch

from ..models import Preset
from .weights import WorkingWeights


def make_optimizer(recipe: Preset, weights: WorkingWeights[Any], lr: float) -> torch.optim.Optimizer:
    options: dict[str, Any] = dict(recipe.optimizer_options)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(weights.parameters, lr=lr, fused=True, **options)
    return torch.optim.RMSprop(weights.parameters, lr=lr, foreach=True, **options)
