"""The bf16 products of a layer of `leaky` on a CPU: forward with its bias, and both of its backward, against oneDNN's.

The same matrices again and again lie in the caches. In a training step they do not, and fastvae's lead is larger:
see `fastvae bench`.
"""

import pytest
import timing
import torch

from fastvae.ops import _library
from fastvae.ops.internal.mm import mm

BATCHES = (20, 100, 1024)
LAYERS = [(784, 400), (400, 400), (400, 200)]

pytestmark = pytest.mark.skipif(not _library.multiplies_bf16(), reason="needs a CPU with AVX-512 BF16")


def torch_mm(left, right, bias=None):
    return torch.mm(left, right) if bias is None else torch.addmm(bias, left, right)


CONTENDERS = {"fastvae": mm, "torch: addmm, mm": torch_mm}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("batch", BATCHES)
def test_mm(benchmark, batch, layer, name):
    into, out = layer
    x = torch.randn(batch, into).bfloat16()
    gradient = torch.randn(batch, out).bfloat16()
    weight = torch.randn(out, into).bfloat16()
    bias = torch.randn(out).bfloat16()
    multiply = CONTENDERS[name]

    def call():
        multiply(x, weight.t(), bias)
        multiply(gradient, weight)
        multiply(gradient.t(), x)

    benchmark.group = f"mm {batch}x{into}x{out} bf16, forward and backward of a layer"
    moved = 2 * 3 * (batch * (into + out) + into * out)
    benchmark.extra_info["flops"] = 3 * 2 * batch * into * out
    timing.time(benchmark, name, call, device=torch.device("cpu"), moved=moved)
