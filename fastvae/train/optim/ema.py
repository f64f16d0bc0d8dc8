"""Exponential moving average (EMA) of a model's weights."""

import copy

import torch
from torch import Tensor

from fastvae.models import VAE


class EMA:
    r"""Exponential moving average: ``average <- d * average + (1 - d) * weights`` after each step.

    The average starts as the initial weights, and the decay d rises to the one that was asked for:

    .. math:: d_n = \min\left(\text{decay}, \frac{1 + n}{10 + n}\right)

    after n steps (the warm-up of TensorFlow's ``ExponentialMovingAverage``, of torch-ema and of timm). A constant 0.999
    would leave 63 % of the initial weights in the average after an epoch of MNIST, of 469 steps; with the warm-up
    less than 1e-17 of them is left. The decay that was asked for is reached at n = 9 / (1 - decay).

    ``model`` computes with the average and shares the buffers of the model that it follows. torch's own AveragedModel
    reads its step count on the host at each step, which would synchronize.

    Args:
        model: the model to follow.
        decay: in (0, 1).
        step: (1,) int64 on the model's device: the steps taken, which the caller counts.
    """

    def __init__(self, model: VAE, decay: float, step: Tensor) -> None:
        self.model = copy.deepcopy(model, {id(buffer): buffer for buffer in model.buffers()}).requires_grad_(False)
        self._step = step
        self._rest = 1 - decay
        self._weights = [parameter.detach() for parameter in model.parameters()]
        self._averages = [parameter.detach() for parameter in self.model.parameters()]
        self._dtypes = {average.dtype for average in self._averages}

    def update(self) -> None:
        """Move the average after a step of the optimiser, which has been counted. Never synchronizes on a GPU."""
        rest = (9 / (10 + self._step.double())).clamp(min=self._rest)
        # A launch for each weight on a GPU, where a number from the host would take one launch for all, but would be
        # frozen into a CUDA graph. On a CPU it takes as long (0.10 ms for leaky's weights).
        shares = {dtype: rest.to(dtype) for dtype in self._dtypes}
        torch._foreach_lerp_(self._averages, self._weights, [shares[average.dtype] for average in self._averages])
