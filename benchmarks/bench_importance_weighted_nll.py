"""The importance-weighted bound: an ideal pass moves 16 bytes per sample in fp32."""

import math

import pytest
import timing
import torch

from fastvae import ops

# (rows, samples): bound by launches and Python, and by memory.
SHAPES = [(100, 5), (8192, 64)]


def eager(nll, log_ratio):
    return (math.log(nll.shape[1]) - torch.logsumexp(-nll - log_ratio, 1)).mean()


CONTENDERS = {
    "fastvae": lambda: ops.importance_weighted_nll,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "samples"), SHAPES)
def test_importance_weighted_nll(benchmark, device, rows, samples, name):
    benchmark.group = f"importance_weighted_nll {rows}x{samples} fp32, forward + backward"
    nll, log_ratio = (torch.randn(rows, samples, device=device, requires_grad=True) for _ in range(2))
    call = timing.forward_backward(CONTENDERS[name](), [nll, log_ratio])
    timing.time(benchmark, name, call, device=device, moved=16 * nll.numel())
