"""The matmuls of a layer of `leaky` on a CPU, against torch's and oneDNN's: forward with bias, and the two of backward.

The same matrices again and again lie in the caches. In a training step they do not, and fastvae's lead is larger:
see `fastvae bench`.
"""

import pytest
import timing
import torch

from fastvae import backends
from fastvae.ops.internal.mm import mm

BATCHES = (20, 100, 1024)
LAYERS = [(784, 400), (400, 400), (400, 200)]

TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}

pytestmark = pytest.mark.skipif(not backends.has_native(), reason="needs the C++ extension")


def torch_mm(left, right, bias=None):
    return torch.mm(left, right) if bias is None else torch.addmm(bias, left, right)


def onednn_mm(left, right, bias=None):
    """Multiply by the call that torch.compile makes for layers whose weights are constant."""
    return torch.ops.mkldnn._linear_pointwise(left, right.t(), bias, "none", [], "")


CONTENDERS = {"fastvae": mm, "torch: addmm, mm": torch_mm, "oneDNN: _linear_pointwise": onednn_mm}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("batch", BATCHES)
def test_mm(benchmark, batch, layer, kind, name):
    if (kind == "bf16" and not backends.multiplies_bf16()) or (kind == "fp64" and "oneDNN" in name):
        pytest.skip("there is none on this machine")
    into, out = layer
    shapes = ((batch, into), (batch, out), (out, into), (out,))
    x, gradient, weight, bias = (torch.randn(shape, dtype=TYPES[kind]) for shape in shapes)
    multiply = CONTENDERS[name]

    def call():
        multiply(x, weight.t(), bias)
        multiply(gradient, weight)
        multiply(gradient.t(), x)

    benchmark.group = f"mm {batch}x{into}x{out} {kind}, forward and backward of a layer"
    moved = x.element_size() * 3 * (batch * (into + out) + into * out)
    benchmark.extra_info["flops"] = 3 * 2 * batch * into * out
    timing.time(benchmark, name, call, device=torch.device("cpu"), moved=moved)
