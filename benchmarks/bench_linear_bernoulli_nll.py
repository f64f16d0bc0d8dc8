"""The last layer and its binary cross-entropy: matmuls of 6 B H O FLOPs, uint8 targets; time and peak memory.

"MB" is the most that forward and backward hold at once beyond their inputs, the gradients included.
"""

import pytest
import timing
import torch
import torch.nn.functional as F

from fastvae import ops

# (rows, H, O): an MNIST network, a wide batch of 32 x 32 colour images, a few of 64 x 64.
SHAPES = [(128, 400, 784), (4096, 512, 3072), (256, 1024, 12288)]


def eager(hidden, weight, bias, target):
    logits = F.linear(hidden, weight, bias)
    return F.binary_cross_entropy_with_logits(logits, target.float() / 255, reduction="sum") / len(logits)


def two_steps(hidden, weight, bias, target):
    return ops.bernoulli_nll(F.linear(hidden, weight, bias), target)


CONTENDERS = {
    "fastvae": lambda: ops.linear_bernoulli_nll,
    "nn.Linear + bernoulli_nll": lambda: two_steps,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("rows", "features", "outputs"), SHAPES)
def test_linear_bernoulli_nll(benchmark, device, rows, features, outputs, dtype, name):
    benchmark.group = f"linear_bernoulli_nll {rows}x{features} -> {outputs} {timing.KINDS[dtype]}, forward + backward"
    hidden = torch.randn(rows, features, device=device, dtype=dtype, requires_grad=True)
    layer = torch.nn.Linear(features, outputs, device=device, dtype=dtype)
    target = torch.randint(0, 256, (rows, outputs), dtype=torch.uint8, device=device)
    call = timing.forward_backward(CONTENDERS[name](), [hidden, layer.weight, layer.bias], target)
    call()  # compiles
    benchmark.extra_info.update(
        name=name,
        flops=6 * rows * features * outputs,
        peak_bytes=timing.peak_bytes(call, device),
        baseline=name != "fastvae",
    )
    small = rows * outputs < 1e6
    rounds, iterations = (60, 20) if small else (7, 1)
    timing.measure(benchmark, call, device=device, rounds=rounds, warmup_rounds=3, iterations=iterations)
