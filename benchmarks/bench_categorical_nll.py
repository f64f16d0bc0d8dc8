"""Cross-entropy over K classes per pixel, uint8 targets: an ideal pass moves 8 bytes per logit in fp32."""

import pytest
import timing
import torch
import torch.nn.functional as F

from fastvae import ops


def eager(logits, target):
    return F.cross_entropy(logits, target.long(), reduction="sum") / len(logits)


CONTENDERS = {
    "fastvae": lambda: ops.categorical_nll,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "classes", "event"), [(100, 2, (28, 28)), (4096, 256, ()), (16, 256, (3, 32, 32))])
def test_categorical_nll(benchmark, device, rows, classes, event, name):
    shape = f"{'x'.join(map(str, (rows, classes, *event)))}"
    benchmark.group = f"categorical_nll {shape} fp32, forward + backward"
    logits = torch.randn(rows, classes, *event, device=device, requires_grad=True)
    target = torch.randint(0, classes, (rows, *event), dtype=torch.uint8, device=device)
    call = timing.forward_backward(CONTENDERS[name](), [logits], target)
    timing.time(benchmark, name, call, device=device, moved=8 * logits.numel() + target.numel())
