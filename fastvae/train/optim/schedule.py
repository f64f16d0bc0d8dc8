"""Learning rate, beta and capacity by step: tables of one value a step, which the device reads at its own step counter.

Nothing waits for the device and nothing is kept on the host: a CUDA graph replays the look-up, and a run that goes on
from a checkpoint reads on where it was.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .build import takes_device_rate


class Plan(NamedTuple):
    """Learning rate, beta and capacity of each step, (steps,) fp64; None for what stays as it is."""

    rates: Tensor | None = None
    betas: Tensor | None = None
    capacities: Tensor | None = None


def warmed_up(step: Tensor, steps: int) -> Tensor:
    """(step + 1) / steps, at most 1: the first step moves, and the last of ``steps`` is a whole one.

    >>> import torch
    >>> warmed_up(torch.arange(4), 2)
    tensor([0.5000, 1.0000, 1.0000, 1.0000])
    """
    return ((step + 1) / max(1, steps)).clamp(max=1)


def cosine(step: Tensor, steps: int) -> Tensor:
    """From 1 at step 0 to 0 after ``steps``: (1 + cos(pi step / steps)) / 2 (Loshchilov & Hutter 2016, equation 5)."""
    return (1 + torch.cos(math.pi * (step / steps).clamp(0, 1))) / 2


def iwae(epoch: Tensor) -> Tensor:
    """10^(-i/7) for 3^i epochs, i = 0 ... 7: 3,280 epochs (Burda, Grosse & Salakhutdinov 2015, section 5).

    >>> import torch
    >>> iwae(torch.tensor([0, 1, 4, 3279])).log10() * -7
    tensor([-0., 1., 2., 7.])
    """
    ends = torch.tensor([(3 ** (i + 1) - 1) // 2 for i in range(7)])
    return 10 ** (-torch.bucketize(epoch, ends, right=True) / 7)


def ramp(step: Tensor, steps: int) -> Tensor:
    """From 0 at step 0 to 1 at ``steps``, and 1 from there on (KL annealing, Bowman et al. 2016, section 3.1)."""
    return (step / steps).clamp(max=1)


def cyclical(step: Tensor, steps: int) -> Tensor:
    """Cycles of ``steps``: half of each a ramp from 0 to 1, half of it 1 (Fu et al. 2019, equation 6, R = 0.5)."""
    return (2 * (step % steps) / steps).clamp(max=1)


class Schedule:
    """Sets an optimiser's learning rate and the tensors beta and capacity, (1,) each, at each step.

    A plan without tables does nothing.
    """

    def __init__(
        self, plan: Plan, optimizer: torch.optim.Optimizer, beta: Tensor, capacity: Tensor, noise_state: Tensor
    ) -> None:
        self._counter = noise_state[1:]
        self._optimizer = optimizer
        dials = ((plan.betas, beta), (plan.capacities, capacity))
        self._dials = [(table.to(dial), dial) for table, dial in dials if table is not None]
        self._rates, self._host_rates, self._rate = None, None, torch.zeros(1, device=beta.device)
        self._rate_0d = self._rate[0]
        if plan.rates is not None and takes_device_rate(optimizer):
            self._rates = plan.rates.to(self._rate)
        elif plan.rates is not None:
            self._host_rates = plan.rates.cpu().numpy()  # as a list, ten million steps would take 300 MB

    def set(self) -> None:
        """Set them for the step that is to be taken. Beyond the end of the plan, its last values."""
        for table, dial in self._dials:
            _look_up(table, self._counter, dial)
        if self._rates is not None:
            _look_up(self._rates, self._counter, self._rate)
            self._optimizer.param_groups[0]["lr"] = self._rate_0d
        elif self._host_rates is not None:
            # On a GPU this waits, for the optimisers that take no tensor: Adagrad and Adafactor, which waits anyway.
            self._optimizer.param_groups[0]["lr"] = self._host_rates.item(
                min(int(self._counter), len(self._host_rates) - 1)
            )


def _look_up(table: Tensor, counter: Tensor, out: Tensor) -> None:
    torch.index_select(table, 0, counter.clamp(max=len(table) - 1), out=out)
