"""The contract of a likelihood of grey pixels beyond that of a loss: targets of any type, and visible infinities."""

import functools
from typing import Any

import pytest
import torch

from . import support
from .loss_contract import LossContract
from .support import assert_accurate


class PixelContract(LossContract):
    @pytest.mark.parametrize("target", [torch.float32, "same"], ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_for_a_float_target(self, place: Any, dtype: torch.dtype, target: Any) -> None:
        make = functools.partial(self.case.make, target=dtype if target == "same" else target)
        inputs = make(place.affordable((7, 784)), dtype, torch.Generator().manual_seed(5)).to(place.device)
        for reduction in support.REDUCTIONS:
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
