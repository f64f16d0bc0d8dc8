"""Exponential moving average (EMA) of a model's weights."""

import copy

import torch

from fastvae.models import VAE


class EMA:
    """Exponential moving average: ``average <- decay * average + (1 - decay) * weights`` after each step.

    It starts as the initial weights. ``model`` computes with the average and shares the buffers of the model that it
    follows. torch's own AveragedModel reads its step count on the host at each step, which would synchronize.
    """

    def __init__(self, model: VAE, decay: float) -> None:
        self.model = copy.deepcopy(model, {id(buffer): buffer for buffer in model.buffers()}).requires_grad_(False)
        self._factor = 1 - decay
        self._weights = [parameter.detach() for parameter in model.parameters()]
        self._averages = [parameter.detach() for parameter in self.model.parameters()]

    def update(self) -> None:
        """Move the average after a step of the optimiser."""
        torch._foreach_lerp_(self._averages, self._weights, self._factor)
