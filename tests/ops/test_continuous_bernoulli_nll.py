import functools
from typing import Any

import pytest
import torch

from . import support
from .cases import CONTINUOUS_BERNOULLI_NLL
from .contract import LossContract
from .support import assert_accurate


class TestContinuousBernoulliNLL(LossContract):
    case = CONTINUOUS_BERNOULLI_NLL

    @pytest.mark.parametrize("target", [torch.float32, "same"], ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_for_a_float_target(self, place: Any, dtype: torch.dtype, target: Any) -> None:
        make = functools.partial(self.case.make, target=dtype if target == "same" else target)
        inputs = make(place.affordable((7, 784)), dtype, torch.Generator().manual_seed(5)).to(place.device)
        for reduction in self.case.reductions:
            assert_accurate(self.case, inputs, place.backend, reduction=reduction)

    @support.not_finite
    @pytest.mark.parametrize("reduction", support.REDUCTIONS)
    @pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
    def test_what_is_not_finite_stays_so(self, place: Any, bad: float, reduction: str) -> None:
        for at in range(len(self.case.inputs((1, 1)).tensors)):
            inputs = self.case.inputs((3, 40), torch.float32, place.device)
            inputs.tensors[at][1, 17] = bad
            loss = self.loss(inputs, place, reduction=reduction)
            assert not (loss[1] if reduction == "none" else loss).isfinite()
            assert reduction != "none" or loss[[0, 2]].isfinite().all()

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_near_one_half(self, place: Any, dtype: torch.dtype) -> None:
        # One logit a row, so that no neighbour hides a loss of digits. The form with 0 / 0 loses them all here.
        for scale in (0.0, 1e-6, 1e-3, 0.1, 0.249, 0.251, 0.99, 1.01, 3.0):
            logits = torch.tensor([[-scale], [scale]], dtype=dtype, device=place.device)
            target = torch.tensor([[51], [204]], dtype=torch.uint8, device=place.device)
            assert_accurate(self.case, support.Inputs((logits,), (target,)), place.backend, reduction="none")

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_extreme_logits_stay_right(self, place: Any, dtype: torch.dtype) -> None:
        logits = torch.tensor([[1e4], [1e4], [-1e4], [-1e4]], dtype=dtype, device=place.device)
        target = torch.tensor([[0], [255], [0], [255]], dtype=torch.uint8, device=place.device)
        assert_accurate(self.case, support.Inputs((logits,), (target,)), place.backend, reduction="none")
