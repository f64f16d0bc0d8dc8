"""The contract of operators with a reduced loss, beyond :mod:`contract`."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from . import support
from .contract import OpContract, seeds, shapes
from .support import Inputs, assert_accurate, assert_close, value_and_grad


class LossContract(OpContract):
    """The loss is the last output."""

    def loss(self, inputs: Inputs, place: Any, **options: Any) -> torch.Tensor:
        return self.case.fused(*inputs.tensors, *inputs.constants, backend=place.backend, **options)[-1]

    def test_reductions_agree(self, place: Any) -> None:
        @given(shape=shapes, seed=seeds)
        def check(shape: tuple[int, ...], seed: int) -> None:
            inputs = self.case.make(shape, torch.float32, torch.Generator().manual_seed(seed)).to(place.device)
            total, mean, rows = (self.loss(inputs, place, reduction=name) for name in ("sum", "batchmean", "none"))
            assert rows.shape == shape[:1]
            assert total.dtype == mean.dtype == rows.dtype == torch.float32
            assert_close((total, mean * shape[0]), (rows.double().sum().float(),) * 2)

        check()

    def test_weight_is_a_factor(self, place: Any) -> None:
        @given(weight=st.floats(-8, 8, width=16), seed=seeds)
        def check(weight: float, seed: int) -> None:
            inputs = self.case.make((4, 9), torch.float32, torch.Generator().manual_seed(seed)).to(place.device)
            on_device = torch.tensor(weight, device=place.device)
            for reduction in support.REDUCTIONS:
                plain = self.loss(inputs, place, reduction=reduction)
                weighted = self.loss(inputs, place, reduction=reduction, weight=weight)
                from_device = self.loss(inputs, place, reduction=reduction, weight=on_device)
                assert_close((weighted, from_device), (plain * weight,) * 2)

        check()

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_a_weight_on_the_device_gives_the_same_gradients(self, place: Any, dtype: torch.dtype) -> None:
        inputs = self.case.inputs(place.affordable((4, 9)), dtype, place.device)
        for reduction in support.some(support.REDUCTIONS, place, dtype):
            by_number = value_and_grad(
                self.case.fused, inputs, 3.0, backend=place.backend, reduction=reduction, weight=0.375
            )
            by_tensor = value_and_grad(
                self.case.fused, inputs, 3.0, backend=place.backend, reduction=reduction,
                weight=torch.tensor(0.375, dtype=dtype, device=place.device),
            )  # fmt: skip
            for n, t in zip(by_number, by_tensor, strict=True):
                assert_close(t, n)

    @support.not_finite
    def test_an_empty_batch_sums_to_zero_and_has_no_mean(self, place: Any) -> None:
        inputs = self.case.inputs((0, 4), torch.float32, place.device)
        assert self.loss(inputs, place, reduction="sum").item() == 0
        assert self.loss(inputs, place, reduction="none").shape == (0,)
        assert self.loss(inputs, place, reduction="batchmean").isnan()

    def test_a_loss_scale_does_not_underflow_in_fp16(self, place: Any) -> None:
        # As torch.amp.GradScaler does it: the gradient for a small weight fits fp16 only once it is scaled.
        inputs = self.case.inputs(place.affordable((7, 33)), torch.float16, place.device)
        assert_accurate(self.case, inputs, place.backend, scalar=2.0**16, reduction="batchmean", weight=1e-5)
