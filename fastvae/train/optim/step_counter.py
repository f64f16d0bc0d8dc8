"""The step counter of a run, which its noise and its schedules read on the device."""

import torch

from fastvae.ops import Noise


class StepCounter:
    """Counts the steps taken, on the device: a CUDA graph that advances it replays with fresh noise and rates.

    One int64 tensor ``state`` (2,) holds ``[seed, step]``. ``noise`` and ``step`` are views of it: the kernels read it
    as the key of their noise, the schedules as the index into their tables. A checkpoint saves it as "noise".

    Args:
        seed: of the noise, 0 <= seed < 2**63.
        device: where the steps are taken.

    >>> counter = StepCounter(seed=7)
    >>> counter.advance()
    >>> counter.noise.state, counter.step
    (tensor([7, 1]), tensor([1]))
    >>> counter.rewind(0)
    >>> counter.state
    tensor([7, 0])
    """

    def __init__(self, seed: int, device: torch.device | str | None = None) -> None:
        self.noise = Noise(seed, 0, device=device)
        self.state = self.noise.state
        self.step = self.state[1:]

    def advance(self) -> None:
        """Count one step, in place on the device."""
        self.step += 1

    def rewind(self, step: int) -> None:
        """Go back to ``step`` steps."""
        self.step.fill_(step)
