"""Mixtures of discretized logistics: an ideal pass moves 8 bytes per parameter in fp32; arithmetic costs more."""

import functools

import pytest
import timing
import torch

from fastvae import ops, reference

CONTENDERS = {
    "fastvae": lambda: ops.discretized_logistic_mixture_nll,
    "eager": lambda: reference.discretized_logistic_mixture_nll,
    **timing.compiled(reference.discretized_logistic_mixture_nll),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "channels", "event", "mixtures"), [(100, 1, (28, 28), 5), (16, 3, (32, 32), 10)])
def test_discretized_logistic_mixture_nll(benchmark, device, rows, channels, event, mixtures, name):
    shape = f"{rows}x{channels}x{'x'.join(map(str, event))}"
    benchmark.group = f"discretized_logistic_mixture_nll {shape}, {mixtures} components, fp32, forward + backward"
    planes = mixtures * (10 if channels == 3 else 3)
    parameters = torch.randn(rows, planes, *event, device=device, requires_grad=True)
    target = torch.randint(0, 256, (rows, channels, *event), dtype=torch.uint8, device=device)
    operation = functools.partial(CONTENDERS[name](), mixtures=mixtures)
    call = timing.forward_backward(operation, [parameters], target)
    timing.time(benchmark, name, call, device=device, moved=8 * parameters.numel() + target.numel())
