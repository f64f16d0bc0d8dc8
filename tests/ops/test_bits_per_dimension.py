import math

import torch

from fastvae import ops


def test_an_even_spread_over_256_values_costs_8_bits() -> None:
    logits, target = torch.zeros(2, 256, 3, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    nll = ops.categorical_nll(logits, target, reduction="none")
    torch.testing.assert_close(ops.bits_per_dimension(nll, 48), torch.full((2,), 8.0))
    assert ops.bits_per_dimension(10 * math.log(2), 10) == 1.0
