"""Gaussian with a log-variance for each pixel, uint8 targets: an ideal pass moves 17 bytes per element in fp32."""

import pytest
import timing
import torch

from fastvae import ops


def eager(mean, logvar, target):
    x = target.float() / 255
    return 0.5 * ((mean - x) ** 2 * torch.exp(-logvar) + logvar).sum() / len(x)


def fused(mean, logvar, target):
    return ops.gaussian_logvar_nll(mean, logvar, target)


def moved(itemsize):
    """Bytes per element that ideal passes move."""
    return 4 * itemsize + 1


CONTENDERS = {
    "fastvae": lambda: fused,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "event"), timing.PIXEL_SHAPES)
def test_gaussian_logvar_nll(benchmark, device, rows, event, name):
    benchmark.group = f"gaussian_logvar_nll {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    first, second = (torch.randn(rows, *event, device=device, requires_grad=True) for _ in range(2))
    target = torch.randint(0, 256, (rows, *event), dtype=torch.uint8, device=device)
    call = timing.forward_backward(CONTENDERS[name](), [first, second], target)
    timing.time(benchmark, name, call, device=device, moved=moved(4) * target.numel())
