import functools
from typing import Any

import pytest
import torch

from fastvae import ops

from . import support
from .cases import LAPLACE_NLL
from .contract import LossContract
from .support import assert_accurate


class TestLaplaceNLL(LossContract):
    case = LAPLACE_NLL

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

    @pytest.mark.parametrize("full", [False, True])
    @pytest.mark.parametrize("scale", [1e-3, 0.1, 2.5])
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_for_every_scale(self, place: Any, dtype: torch.dtype, scale: float, full: bool) -> None:
        inputs = self.case.inputs((7, 33), dtype, place.device)
        for reduction in support.REDUCTIONS:
            assert_accurate(self.case, inputs, place.backend, reduction=reduction, scale=scale, full=full, weight=0.5)

    def test_the_gradient_is_the_sign_and_zero_where_all_is_right(self, place: Any) -> None:
        location = torch.tensor([[0.0, 0.5, 1.0]], device=place.device, requires_grad=True)
        target = torch.full_like(location, 0.5).detach()
        ops.laplace_nll(location, target, 0.25, backend=place.backend).backward()
        assert location.grad.tolist() == [[-4.0, 0.0, 4.0]]
