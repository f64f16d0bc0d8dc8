"""Binary cross-entropy on logits, uint8 targets: an ideal pass moves 9 bytes per element in fp32, 5 in bf16."""

import pytest
import timing
import torch
import torch.nn.functional as F

from fastvae import ops


def eager(logits, target):
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype) / 255, reduction="sum") / len(logits)


def eager_on_probabilities(logits, target):
    return F.binary_cross_entropy(torch.sigmoid(logits), target.to(logits.dtype) / 255, reduction="sum") / len(logits)


def moved(itemsize):
    """Bytes per element that ideal passes move."""
    return 2 * itemsize + 1


CONTENDERS = {
    "fastvae": lambda: ops.bernoulli_nll,
    "eager, BCE with logits": lambda: eager,
    "eager, sigmoid + BCE": lambda: eager_on_probabilities,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("rows", "event"), [*timing.PIXEL_SHAPES, timing.LARGE_PIXEL_SHAPE])
def test_bernoulli_nll(benchmark, device, rows, event, dtype, name):
    benchmark.group = f"bernoulli_nll {rows}x{'x'.join(map(str, event))} {timing.KINDS[dtype]}, forward + backward"
    logits = torch.randn(rows, *event, device=device, dtype=dtype, requires_grad=True)
    target = torch.randint(0, 256, (rows, *event), dtype=torch.uint8, device=device)
    call = timing.forward_backward(CONTENDERS[name](), [logits], target)
    timing.time(benchmark, name, call, device=device, moved=moved(dtype.itemsize) * logits.numel())
