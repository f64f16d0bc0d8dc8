"""The types whose products are fastvae's own on this CPU, as parameters of tests."""

import pytest
import torch

from fastvae import backends

needs_bf16 = pytest.mark.skipif(not backends.multiplies_bf16(), reason="needs a CPU with AVX-512 BF16")
_needs_native = pytest.mark.skipif(not backends.has_native(), reason="needs the C++ extension")
of_each_type = pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(torch.bfloat16, marks=needs_bf16, id="bf16"),
        pytest.param(torch.float32, marks=_needs_native, id="fp32"),
        pytest.param(torch.float64, marks=_needs_native, id="fp64"),
    ],
)
