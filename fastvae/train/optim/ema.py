"""Exponential moving average (EMA) of a model's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    r"""Exponential moving average: ``average <- d * average + (1 - d) * weights`` after each step.

    The average starts as the initial weights, and the decay d rises to the one that was asked for:

    .. math:: d_n = \min\left(\text{decay}, \frac{1 + n}{10 + n}\right)

    after n steps (the warm-up of TensorFlow's ``ExponentialMovingAverage``, of torch-ema and of timm). A constant 0.999
    would leave 63 % of the initial weights in the average after an epoch of MNIST, of 469 steps; with the warm-up
    less than 1e-17 of them is left. The decay that was asked for is reached at n = 9 / (1 - decay).

    The model itself computes with the average inside :meth:`applied`: a copy of a model would not follow the buffers
    that its forward pass replaces, and many models cannot be copied. torch's own AveragedModel reads its step count on
    the host at each step, which would synchronize.

    Args:
        model: the model to follow.
        decay: in (0, 1).
        step: (1,) int64 on the model's device: the steps taken, which the caller counts.

    Attributes:
        averages: the averages by their parameters' names.
    """

    def __init__(self, model: nn.Module, decay: float, step: Tensor) -> None:
        self._step = step
        self._rest = 1 - decay
        self._weights = list(model.parameters())
        self.averages = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self._dtypes = {average.dtype for average in self.averages.values()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the model's weights for their averages inside the context; no memory moves."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for weight, average in zip(self._weights, self.averages.values(), strict=True):
            weight.data, average.data = average.data, weight.data

    def update(self) -> None:
        """Move the average after a step of the optimiser, which has been counted. Never synchronizes on a GPU."""
        rest = (9 / (10 + self._step.double())).clamp(min=self._rest)
        # A launch for each weight on a GPU, where a number from the host would take one launch for all, but would be
        # frozen into a CUDA graph. On a CPU it takes as long (0.10 ms for leaky's weights).
        shares = {dtype: rest.to(dtype) for dtype in self._dtypes}
        averages = list(self.averages.values())
        weights = [weight.detach() for weight in self._weights]
        torch._foreach_lerp_(averages, weights, [shares[average.dtype] for average in averages])
