"""Discretised logistic, uint8 targets: an ideal pass moves 17 bytes an element in fp32."""

import pytest
import timing
import torch
import torch.nn.functional as F

from fastvae import ops


def eager(mean, log_scale, target):
    x = target.float() / 255
    inverse = torch.exp(-log_scale)
    error = x - mean
    above, below = F.logsigmoid((error + 1 / 510) * inverse), F.logsigmoid(-(error - 1 / 510) * inverse)
    inside = torch.log(-torch.expm1(-inverse / 255))
    return -torch.where(target == 0, above, torch.where(target == 255, below, above + below + inside)).sum() / len(x)


def fused(mean, log_scale, target):
    return ops.discretized_logistic_nll(mean, log_scale, target)


def moved(itemsize):
    """Bytes an element, by ideal passes."""
    return 4 * itemsize + 1


CONTENDERS = {
    "fastvae": lambda: fused,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "event"), timing.PIXEL_SHAPES)
def test_discretized_logistic_nll(benchmark, device, rows, event, name):
    benchmark.group = f"discretized_logistic_nll {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    first, second = (torch.randn(rows, *event, device=device, requires_grad=True) for _ in range(2))
    target = torch.randint(0, 256, (rows, *event), dtype=torch.uint8, device=device)
    call = timing.forward_backward(CONTENDERS[name](), [first, second], target)
    timing.time(benchmark, name, call, device=device, moved=moved(4) * target.numel())
