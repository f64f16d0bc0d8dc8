"""The operations in the table of a GPU's bandwidth: the contenders of bench_X.py, on small to large inputs."""

import importlib
import math
from collections.abc import Callable
from typing import NamedTuple

import timing
import torch
from graph_timing import Calls
from torch import Tensor

# (rows, columns): bound by launches and Python; in between; moving 1 to 4 GB.
PIXELS = [(100, 784), (256, 12288), (16384, 12288)]
LATENTS = [(100, 20), (8192, 256), (524288, 256)]
FP32 = (torch.float32,)
BOTH = (torch.float32, torch.bfloat16)


class Operation(NamedTuple):
    """A loss of ``leaves`` tensors of one shape and, if ``has_target``, of uint8 pixels."""

    name: str
    leaves: int
    has_target: bool
    dtypes: tuple[torch.dtype, ...]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return PIXELS if self.has_target else LATENTS

    def contenders(self) -> dict[str, Callable[[], Callable[..., Tensor]]]:
        """Return functions that build the contenders, by name: "fastvae", eager ones, "torch.compile"."""
        return importlib.import_module(f"bench_{self.name}").CONTENDERS

    def bytes(self, shape: tuple[int, ...], dtype: torch.dtype) -> int:
        """Return the bytes that ideal passes, forward and backward, read and write."""
        moved = importlib.import_module(f"bench_{self.name}").moved
        return moved(dtype.itemsize) * math.prod(shape)

    def calls(self, contender: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Calls:
        """Return calls of a contender's forward and backward pass, to be timed over several sets of inputs.

        ``calls.rotate()`` makes the sets and returns their number. ``timing.device_seconds(calls, sets)`` and
        ``timing.wall_seconds(calls, sets)`` time the calls.
        """
        leaves = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(self.leaves)]
        target = [torch.randint(0, 256, shape, dtype=torch.uint8, device=device)] if self.has_target else []
        return timing.forward_backward(self.contenders()[contender](), leaves, *target)


OPERATIONS = [
    Operation("bernoulli_nll", 1, True, BOTH),
    Operation("continuous_bernoulli_nll", 1, True, FP32),
    Operation("gaussian_nll", 1, True, BOTH),
    Operation("gaussian_logvar_nll", 2, True, FP32),
    Operation("optimal_gaussian_nll", 1, True, FP32),
    Operation("laplace_nll", 1, True, FP32),
    Operation("discretized_logistic_nll", 2, True, FP32),
    Operation("gaussian_kl", 2, False, BOTH),
    Operation("gaussian_prior_kl", 4, False, BOTH),
    Operation("free_bits_kl", 2, False, BOTH),
    Operation("reparameterize", 2, False, BOTH),
    Operation("reparameterize_kl", 2, False, BOTH),
]
