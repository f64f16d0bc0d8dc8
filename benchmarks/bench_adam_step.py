"""The optimiser's step of the preset `leaky` with bf16 gradients and working weights: 28 bytes a parameter in one pass.

Against torch's three: gradients to fp32, its fused Adam, weights to bf16. Between rounds of "cold", 64 MB of other data
pass through the caches, as a forward and backward pass would.
"""

import pytest
import timing
import torch

from fastvae.models import PRESETS, build
from fastvae.train.optim.adam import Adam

BYTES = 28  # read: gradient 2, weight and moments 12; written: weight and moments 12, working weight 2
OTHER = 64 << 20  # bytes


class Fused:
    """fastvae's step, which takes low-precision gradients and writes the working weights."""

    def __init__(self, weights, gradients, working):
        self.optimizer = Adam(weights, working=dict(zip(weights, working, strict=True)))
        self.gradients = gradients

    def __call__(self):
        self.optimizer.step_with(self.gradients)


class ThreePasses:
    """The same with torch alone."""

    def __init__(self, weights, gradients, working):
        self.optimizer = torch.optim.Adam(weights, fused=True)
        self.weights = weights
        self.gradients = gradients
        self.working = working
        for weight in weights:
            weight.grad = torch.empty_like(weight)

    @torch.no_grad()
    def __call__(self):
        torch._foreach_copy_([weight.grad for weight in self.weights], self.gradients)
        self.optimizer.step()
        torch._foreach_copy_(self.working, self.weights)


CONTENDERS = {"fastvae": Fused, "torch: copy, fused Adam, copy": ThreePasses}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("caches", ["hot", "cold"])
def test_adam_step(benchmark, caches, name):
    weights = list(build(PRESETS["leaky"], (1, 28, 28)).parameters())
    gradients = [torch.randn_like(weight).mul(1e-2).bfloat16() for weight in weights]
    step = CONTENDERS[name](weights, gradients, [weight.detach().bfloat16() for weight in weights])
    count = sum(weight.numel() for weight in weights)
    moved = BYTES * count
    cpu = torch.device("cpu")
    other = torch.zeros(OTHER, dtype=torch.uint8)

    def forget():
        other.add_(1)

    step()  # makes the moments
    benchmark.group = f"adam_step of {count} parameters in {len(weights)} tensors, bf16 gradients and copies, {caches}"
    benchmark.extra_info.update(
        name=name, bytes=moved, baseline=name != "fastvae", copy_s=timing.copy_seconds(moved, cpu)
    )
    benchmark.pedantic(step, setup=forget if caches == "cold" else None, rounds=200, warmup_rounds=20)
