"""Learning-rate, beta and capacity schedules: tables of one value a step, which the device reads at its step counter.

Nothing synchronizes with the device and no state is kept on the host: a CUDA graph replays the look-up, and a resumed
run reads on where it was.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .build import takes_device_rate
from .step_counter import StepCounter


class Plan(NamedTuple):
    """Learning rate, beta and capacity of each step, (steps,) fp64; None for a value that no schedule changes."""

    rates: Tensor | None = None
    betas: Tensor | None = None
    capacities: Tensor | None = None


def warmed_up(step: Tensor, steps: int) -> Tensor:
    """Linear warm-up: (step + 1) / steps, at most 1. The first step's rate is above 0, that of the last is full.

    >>> import torch
    >>> warmed_up(torch.arange(4), 2)
    tensor([0.5000, 1.0000, 1.0000, 1.0000])
    """
    return ((step + 1) / max(1, steps)).clamp(max=1)


def cosine(step: Tensor, steps: int) -> Tensor:
    """Cosine decay from 1 at step 0 to 0 after ``steps``: (1 + cos(pi step / steps)) / 2.

    (Loshchilov & Hutter 2016, equation 5.)
    """
    return (1 + torch.cos(math.pi * (step / steps).clamp(0, 1))) / 2


def iwae(epoch: Tensor) -> Tensor:
    """Schedule of the IWAE paper: 10^(-i/7) for 3^i epochs, i = 0 ... 7, 3,280 epochs in all.

    (Burda, Grosse & Salakhutdinov 2015, section 5.) Returns fp64.

    >>> import torch
    >>> iwae(torch.tensor([0, 1, 4, 3279])).log10() * -7
    tensor([-0.0000, 1.0000, 2.0000, 7.0000], dtype=torch.float64)
    """
    ends = torch.tensor([(3 ** (i + 1) - 1) // 2 for i in range(7)])
    stage = torch.bucketize(epoch, ends, right=True).double()  # of whole numbers, the quotient would be fp32
    return 10 ** (-stage / 7)


def ramp(step: Tensor, steps: int) -> Tensor:
    """Linear ramp from 0 at step 0 to 1 at ``steps``, then 1 (KL annealing, Bowman et al. 2016, section 3.1)."""
    return (step / steps).clamp(max=1)


def cyclical(step: Tensor, steps: int) -> Tensor:
    """Cyclical annealing: in each cycle of ``steps``, a ramp from 0 to 1 in the first half, then 1.

    (Fu et al. 2019, equation 6, R = 0.5.)
    """
    return (2 * (step % steps) / steps).clamp(max=1)


class Schedule:
    """Sets an optimiser's learning rate and the tensors beta and capacity, (1,) each, at each step.

    A plan without tables does nothing.
    """

    def __init__(
        self, plan: Plan, optimizer: torch.optim.Optimizer, beta: Tensor, capacity: Tensor, counter: StepCounter
    ) -> None:
        self._step = counter.step
        self._optimizer = optimizer
        scalars = ((plan.betas, beta), (plan.capacities, capacity))
        self._scalars = [(table.to(scalar), scalar) for table, scalar in scalars if table is not None]
        self._rates: Tensor | None = None
        self._host_rates = None
        self._rate = torch.zeros(1, device=beta.device)
        self._rate_0d = self._rate[0]
        if plan.rates is not None and takes_device_rate(optimizer):
            self._rates = plan.rates.to(self._rate)
        elif plan.rates is not None:
            self._host_rates = plan.rates.cpu().numpy()  # as a list, ten million steps would take 300 MB

    def set(self) -> None:
        """Set the values of the next step; after the end of the plan, its last ones."""
        for table, scalar in self._scalars:
            _look_up(table, self._step, scalar)
        if self._rates is not None:
            _look_up(self._rates, self._step, self._rate)
            self._optimizer.param_groups[0]["lr"] = self._rate_0d
        elif self._host_rates is not None:
            # On a GPU this synchronizes, for the optimisers that take no tensor: Adagrad, and Adafactor, which does so
            # itself.
            self._optimizer.param_groups[0]["lr"] = self._host_rates.item(
                min(int(self._step), len(self._host_rates) - 1)
            )


def _look_up(table: Tensor, step: Tensor, out: Tensor) -> None:
    torch.index_select(table, 0, step.clamp(max=len(table) - 1), out=out)
