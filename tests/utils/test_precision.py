"""The table of floating-point types."""

import torch

from fastvae.utils.precision import DTYPES, autocast_dtype


def test_only_the_types_of_16_bits_need_autocast() -> None:
    found = {name: autocast_dtype(name) for name in DTYPES}
    assert found == {"fp32": None, "fp64": None, "bf16": torch.bfloat16, "fp16": torch.float16}
