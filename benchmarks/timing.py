"""Timing of one op: forward and backward, fastvae against eager and torch.compile, bytes counted."""

from collections.abc import Callable

import torch
from torch import Tensor

# (rows, event shape): bound by launches and Python, and bound by memory.
PIXEL_SHAPES = [(100, (784,)), (256, (3, 64, 64))]
LATENT_SHAPES = [(100, (20,)), (8192, (256,))]


def forward_backward(operation: Callable[..., Tensor], leaves: list[Tensor], *arguments: object) -> Callable[[], None]:
    """A call that runs ``operation(*leaves, *arguments)`` to a scalar and back to the gradients of the leaves."""
    cuda = leaves[0].is_cuda

    def call() -> None:
        torch.autograd.grad(operation(*leaves, *arguments), leaves)
        if cuda:
            torch.cuda.synchronize()

    return call


def time(benchmark, name: str, call: Callable[[], None], *, moved: int, baseline: bool = False) -> None:
    """Time ``call`` by the wall clock; ``moved`` are the bytes that an ideal single pass reads and writes."""
    benchmark.extra_info.update(name=name, bytes=moved, baseline=baseline)
    call()  # compiles
    benchmark.pedantic(call, rounds=60, warmup_rounds=15, iterations=1 if moved > 1e6 else 20)
