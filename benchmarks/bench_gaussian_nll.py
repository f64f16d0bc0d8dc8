"""Squared error, uint8 targets: an ideal pass moves 9 bytes per element in fp32."""

import pytest
import timing
import torch
import torch.nn.functional as F

from fastvae import ops


def eager(mean, target):
    return 0.5 * F.mse_loss(mean, target.to(mean.dtype) / 255, reduction="sum") / len(mean)


def moved(itemsize):
    """Bytes per element that ideal passes move."""
    return 2 * itemsize + 1


CONTENDERS = {
    "fastvae": lambda: ops.gaussian_nll,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "event"), timing.PIXEL_SHAPES)
def test_gaussian_nll(benchmark, device, rows, event, name):
    benchmark.group = f"gaussian_nll {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    mean = torch.rand(rows, *event, device=device, requires_grad=True)
    target = torch.randint(0, 256, (rows, *event), dtype=torch.uint8, device=device)
    call = timing.forward_backward(CONTENDERS[name](), [mean], target)
    timing.time(benchmark, name, call, device=device, moved=moved(4) * mean.numel())
