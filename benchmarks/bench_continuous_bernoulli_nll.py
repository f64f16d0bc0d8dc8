"""Continuous Bernoulli on logits, uint8 targets: an ideal pass moves 9 bytes per element in fp32."""

import pytest
import timing
import torch

from fastvae import ops


def normaliser(logits):
    """Return log((e**l - 1) / l), by its Taylor series where that is 0 / 0."""
    near = logits.abs() < 0.1
    safe = torch.where(near, 1.0, logits)
    far = torch.relu(safe) + torch.log(-torch.expm1(-safe.abs()) / safe.abs())
    return torch.where(near, 0.5 * logits + logits * logits / 24, far)


def eager(logits, target):
    x = target.float() / 255
    return (normaliser(logits) - logits * x).sum() / len(x)


def fused(logits, target):
    return ops.continuous_bernoulli_nll(logits, target)


def moved(itemsize):
    """Bytes per element that ideal passes move."""
    return 2 * itemsize + 1


CONTENDERS = {
    "fastvae": lambda: fused,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "event"), timing.PIXEL_SHAPES)
def test_continuous_bernoulli_nll(benchmark, device, rows, event, name):
    benchmark.group = f"continuous_bernoulli_nll {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    prediction = torch.randn(rows, *event, device=device, requires_grad=True)
    target = torch.randint(0, 256, (rows, *event), dtype=torch.uint8, device=device)
    call = timing.forward_backward(CONTENDERS[name](), [prediction], target)
    timing.time(benchmark, name, call, device=device, moved=moved(4) * target.numel())
