"""Binary cross-entropy on logits, uint8 targets: an ideal pass moves 9 bytes an element in fp32."""

import pytest
import timing
import torch
import torch.nn.functional as F

from fastvae import ops


def eager(logits, target):
    return F.binary_cross_entropy_with_logits(logits, target.float() / 255, reduction="sum") / len(logits)


def eager_on_probabilities(logits, target):
    return F.binary_cross_entropy(torch.sigmoid(logits), target.float() / 255, reduction="sum") / len(logits)


CONTENDERS = {
    "fastvae": lambda: ops.bernoulli_nll,
    "eager, BCE with logits": lambda: eager,
    "eager, sigmoid + BCE": lambda: eager_on_probabilities,
    "torch.compile": lambda: torch.compile(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "event"), timing.PIXEL_SHAPES)
def test_bernoulli_nll(benchmark, device, rows, event, name):
    benchmark.group = f"bernoulli_nll {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    logits = torch.randn(rows, *event, device=device, requires_grad=True)
    target = torch.randint(0, 256, (rows, *event), dtype=torch.uint8, device=device)
    call = timing.forward_backward(CONTENDERS[name](), [logits], target)
    timing.time(benchmark, name, call, moved=9 * logits.numel(), baseline=name != "fastvae")
