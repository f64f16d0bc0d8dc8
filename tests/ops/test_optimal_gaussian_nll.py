import functools
from typing import Any

import pytest
import torch

from fastvae import ops

from . import support
from .cases import OPTIMAL_GAUSSIAN_NLL
from .contract import OpContract
from .support import assert_accurate


class TestOptimalGaussianNLL(OpContract):
    case = OPTIMAL_GAUSSIAN_NLL

    @pytest.mark.parametrize("target", [torch.float32, "same"], ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_for_a_float_target(self, place: Any, dtype: torch.dtype, target: Any) -> None:
        make = functools.partial(self.case.make, target=dtype if target == "same" else target)
        inputs = make(place.affordable((7, 784)), dtype, torch.Generator().manual_seed(5)).to(place.device)
        for reduction in self.case.reductions:
            assert_accurate(self.case, inputs, place.backend, reduction=reduction)

    @pytest.mark.parametrize("full", [False, True])
    def test_a_weight_on_the_device_and_the_constant(self, place: Any, full: bool) -> None:
        inputs = self.case.inputs((7, 33), torch.float32, place.device)
        for weight in (0.5, torch.tensor(0.5, device=place.device)):
            for reduction in self.case.reductions:
                assert_accurate(self.case, inputs, place.backend, reduction=reduction, weight=weight, full=full)

    @support.not_finite
    def test_a_perfect_fit_is_minus_infinity(self, place: Any) -> None:
        mean = torch.zeros(2, 4, device=place.device)
        assert ops.optimal_gaussian_nll(mean, mean, backend=place.backend).item() == float("-inf")
