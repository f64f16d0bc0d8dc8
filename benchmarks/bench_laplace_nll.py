"""Absolute error, uint8 targets: an ideal pass moves 9 bytes per element in fp32."""

import pytest
import timing
import torch

from fastvae import ops


def eager(location, target):
    x = target.float() / 255
    return torch.nn.functional.l1_loss(location, x, reduction="sum") / len(x)


def fused(location, target):
    return ops.laplace_nll(location, target)


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
def test_laplace_nll(benchmark, device, rows, event, name):
    benchmark.group = f"laplace_nll {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    prediction = torch.randn(rows, *event, device=device, requires_grad=True)
    target = torch.randint(0, 256, (rows, *event), dtype=torch.uint8, device=device)
    call = timing.forward_backward(CONTENDERS[name](), [prediction], target)
    timing.time(benchmark, name, call, device=device, moved=moved(4) * target.numel())
