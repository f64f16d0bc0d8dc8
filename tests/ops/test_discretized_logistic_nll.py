from typing import Any

import pytest
import torch

from . import support
from .cases import DISCRETIZED_LOGISTIC_NLL
from .loss_contract import LossContract
from .support import assert_accurate


class TestDiscretizedLogisticNLL(LossContract):
    case = DISCRETIZED_LOGISTIC_NLL

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

    def test_every_pixel_and_bin(self, place: Any) -> None:
        # A pixel a row. Both ends, whose bins reach to infinity, and means in, beside and far from the bin.
        target = torch.tensor([0, 1, 100, 254, 255], dtype=torch.uint8, device=place.device)
        for mean in (-3.0, 0.0, 0.39, 1.0, 4.0):
            for log_scale in (-7.0, -4.0, -1.0, 3.0):
                tensors = tuple(torch.full((5, 1), value, device=place.device) for value in (mean, log_scale))
                inputs = support.Inputs(tensors, (target.view(5, 1),))
                assert_accurate(self.case, inputs, place.backend, reduction="none")

    @pytest.mark.parametrize("log_scale", [-30.0, -15.0, 20.0, 80.0])
    def test_extreme_scales_stay_finite(self, place: Any, log_scale: float) -> None:
        inputs = self.case.inputs((5, 8), torch.float32, place.device)
        inputs.tensors[1].fill_(log_scale)
        assert_accurate(self.case, inputs, place.backend, reduction="none")
