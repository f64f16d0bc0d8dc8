import functools
import math
from typing import Any

import pytest
import torch

from fastvae import ops

from . import support
from .cases import GAUSSIAN_NLL
from .loss_contract import LossContract
from .support import assert_accurate, assert_close, leaves


class TestGaussianNLL(LossContract):
    case = GAUSSIAN_NLL

    @pytest.mark.parametrize("target", [torch.uint8, torch.float32, "same"], ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_for_every_target_type(self, place: Any, dtype: torch.dtype, target: Any) -> None:
        make = functools.partial(self.case.make, target=dtype if target == "same" else target)
        inputs = make(place.affordable((7, 784)), dtype, torch.Generator().manual_seed(5)).to(place.device)
        for reduction in support.REDUCTIONS:
            assert_accurate(self.case, inputs, place.backend, reduction=reduction)

    @pytest.mark.parametrize("full", [False, True])
    @pytest.mark.parametrize("variance", [1e-3, 0.1, 2.5])
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_for_every_variance(self, place: Any, dtype: torch.dtype, variance: float, full: bool) -> None:
        inputs = self.case.inputs((7, 33), dtype, place.device)
        for reduction in support.REDUCTIONS:
            assert_accurate(
                self.case, inputs, place.backend, reduction=reduction, variance=variance, full=full, weight=0.5
            )

    def test_full_adds_the_constant_of_every_element(self, place: Any) -> None:
        inputs = self.case.inputs((3, 4, 5), torch.float64, place.device)
        plain, full = (
            self.loss(inputs, place, variance=0.3, full=full, reduction="none", weight=2.0) for full in (False, True)
        )
        assert_close((full,), (plain + 2.0 * 20 * 0.5 * math.log(2 * math.pi * 0.3),))

    def test_every_uint8_value_is_its_quotient_by_255_to_the_bit(self, place: Any) -> None:
        pixels = torch.arange(256, dtype=torch.uint8, device=place.device).reshape(2, 128)
        quotient = pixels.float() / 255
        for reduction in support.REDUCTIONS:
            results = []
            for target in (pixels, quotient):
                (leaf,) = leaves((torch.zeros(2, 128, device=place.device),))
                loss = ops.gaussian_nll(leaf, target, reduction=reduction, backend=place.backend)
                loss.backward(torch.ones_like(loss))
                results.append((loss.detach(), leaf.grad))
            (loss, gradient), (expected, expected_gradient) = results
            assert torch.equal(gradient, expected_gradient)
            assert_close((loss,), (expected,))  # the order of the sum may depend on the target's type
        # The gradient is mean - x, so that at mean 0 the pixel can be read off it.
        assert torch.equal(results[-1][1], -quotient)

    @support.not_finite
    @pytest.mark.parametrize("reduction", support.REDUCTIONS)
    @pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
    def test_what_is_not_finite_stays_so(self, place: Any, bad: float, reduction: str) -> None:
        mean = torch.zeros(3, 40, device=place.device)
        mean[1, 17] = bad
        loss = ops.gaussian_nll(mean, torch.zeros_like(mean), reduction=reduction, backend=place.backend)
        assert not (loss[1] if reduction == "none" else loss).isfinite()
        if reduction == "none":
            assert loss[[0, 2]].tolist() == [0.0, 0.0]

    def test_fp16_errors_that_square_beyond_fp16_are_fine(self, place: Any) -> None:
        mean = torch.full((2, 3), 1000.0, dtype=torch.float16, device=place.device)
        loss = ops.gaussian_nll(mean, torch.zeros_like(mean), reduction="sum", backend=place.backend)
        assert loss.item() == 3e6

    def test_under_autocast_the_loss_is_fp32(self, place: Any) -> None:
        layer = torch.nn.Linear(8, 12, device=place.device)
        target = torch.rand(5, 12, device=place.device)
        with torch.autocast(place.device, torch.bfloat16):
            mean = layer(torch.randn(5, 8, device=place.device))
            loss = ops.gaussian_nll(mean, target, backend=place.backend)
        assert mean.dtype == torch.bfloat16
        assert loss.dtype == torch.float32
        loss.backward()
        assert layer.weight.grad.isfinite().all()
