"""Gaussian with the batch's own variance, uint8 targets: two ideal passes move 14 bytes per element in fp32."""

import pytest
import timing
import torch

from fastvae import ops


def eager(mean, target):
    x = target.float() / 255
    return 0.5 * x[0].numel() * torch.log(((mean - x) ** 2).mean())


def fused(mean, target):
    return ops.optimal_gaussian_nll(mean, target)


def moved(itemsize):
    """Bytes per element that ideal passes move."""
    return 3 * itemsize + 2


CONTENDERS = {
    "fastvae": lambda: fused,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "event"), timing.PIXEL_SHAPES)
def test_optimal_gaussian_nll(benchmark, device, rows, event, name):
    benchmark.group = f"optimal_gaussian_nll {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    prediction = torch.randn(rows, *event, device=device, requires_grad=True)
    target = torch.randint(0, 256, (rows, *event), dtype=torch.uint8, device=device)
    call = timing.forward_backward(CONTENDERS[name](), [prediction], target)
    timing.time(benchmark, name, call, device=device, moved=moved(4) * target.numel())
