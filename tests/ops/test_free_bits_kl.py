from typing import Any

import pytest
import torch

from fastvae import ops

from . import cases, support
from .cases import FREE_BITS_KL
from .contract import OpContract
from .support import Inputs, assert_accurate, assert_close, leaves, value_and_grad


class TestFreeBitsKL(OpContract):
    case = FREE_BITS_KL

    @pytest.mark.parametrize("shape", [(3, 6, 5, 2), (40, 60), (9, 700)], ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_groups(self, place: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        if place.interpreted and dtype != torch.float32 and shape != (9, 700):
            pytest.skip("the interpreter takes every shape and number of groups in fp32, and every type in one")
        inputs = self.case.inputs(place.affordable(shape), dtype, place.device)
        for groups in support.some((10, None, 1, 2), place, dtype):
            for free_bits in (0.0, 2.0):
                options = {"groups": groups, "free_bits": free_bits}
                assert_accurate(self.case, inputs, place.backend, reduction="batchmean", **options)

    def test_channels_of_a_grid_are_groups_unless_told(self, place: Any) -> None:
        inputs = self.case.inputs((5, 4, 3, 2), torch.float32, place.device)
        options = {"reduction": "sum", "free_bits": 2.0, "backend": place.backend}
        for a, b in zip(
            value_and_grad(self.case.fused, inputs, **options),
            value_and_grad(self.case.fused, inputs, groups=4, **options),
            strict=True,
        ):
            assert torch.equal(torch.cat([t.flatten() for t in a]), torch.cat([t.flatten() for t in b]))
        zeros = torch.zeros(5, 4, 3, 2, device=place.device)  # no KL: each channel has its allowance, not each place
        assert ops.free_bits_kl(zeros, zeros, 2.0, backend=place.backend).item() == 8
        assert ops.free_bits_kl(zeros, zeros, 2.0, groups=24, backend=place.backend).item() == 48
        assert ops.free_bits_kl(zeros.flatten(1), zeros.flatten(1), 2.0, backend=place.backend).item() == 48

    def test_groups_of_a_packed_head(self, place: Any) -> None:
        mu, logvar = self.case.inputs((7, 4, 3), torch.float32, place.device).tensors
        head = torch.cat((mu, logvar), 1)

        def halves(head: torch.Tensor, **options: Any) -> Any:
            return self.case.fused(*head.chunk(2, 1), groups=4, **options)

        packed = value_and_grad(halves, Inputs((head,), ()), backend=place.backend)
        apart = value_and_grad(halves, Inputs((head,), ()), backend="reference")
        for a, e in zip(packed, apart, strict=True):
            assert_close(a, e)

    def test_without_free_bits_it_is_the_kl(self, place: Any) -> None:
        inputs = self.case.inputs((7, 33), torch.float32, place.device)
        for reduction in self.case.reductions:
            options = {"reduction": reduction, "backend": place.backend}
            free = value_and_grad(self.case.fused, inputs, free_bits=0.0, **options)
            plain = value_and_grad(cases.GAUSSIAN_KL.fused, inputs, **options)
            for f, p in zip(free, plain, strict=True):
                assert_close(f, p)

    def test_a_group_at_or_under_the_threshold_has_its_value_and_no_gradient(self, place: Any) -> None:
        # KL of the columns, averaged over the batch: 0.5, exactly the threshold; 0.125; 2.
        mu = torch.tensor([[1.0, 0.5, 2.0], [1.0, -0.5, -2.0]], device=place.device)
        for reduction, loss, slope in (("batchmean", 3.0, 1.0), ("sum", 6.0, 2.0)):
            inputs = Inputs((mu, torch.zeros_like(mu)), ())
            options = {"reduction": reduction, "backend": place.backend}
            (value,), (of_mu, of_logvar) = value_and_grad(self.case.fused, inputs, **options)
            assert value.item() == loss
            assert of_mu.tolist() == [[0, 0, slope], [0, 0, -slope]]
            assert of_logvar.tolist() == [[0] * 3] * 2

    def test_a_weight_on_the_device(self, place: Any) -> None:
        inputs = self.case.inputs((7, 33), torch.float32, place.device)
        for dtype in (torch.float32, torch.float64):
            for reduction in self.case.reductions:
                weight = torch.tensor(0.375, dtype=dtype, device=place.device)
                assert_accurate(self.case, inputs, place.backend, scalar=3.0, reduction=reduction, weight=weight)

    def test_a_loss_scale_does_not_underflow_in_fp16(self, place: Any) -> None:
        inputs = self.case.inputs((7, 33), torch.float16, place.device)
        assert_accurate(self.case, inputs, place.backend, scalar=2.0**16, reduction="batchmean", weight=1e-5)

    @support.not_finite
    def test_what_is_not_finite_stays_in_its_group(self, place: Any) -> None:
        for bad in (float("nan"), float("inf"), -float("inf")):
            for index in (0, 1):
                tensors = self.case.inputs((3, 4), torch.float32, place.device).tensors
                tensors[index][1, 2] = bad
                assert_accurate(self.case, Inputs(tensors, ()), place.backend, reduction="sum", groups=2)
                mu, logvar = leaves(tensors)
                self.case.fused(mu, logvar, groups=2, free_bits=0.0, backend=place.backend)[0].backward()
                assert mu.grad[:, :2].isfinite().all()
                assert logvar.grad[:, :2].isfinite().all()

    @support.not_finite
    def test_an_empty_batch_sums_to_zero_and_has_no_mean(self, place: Any) -> None:
        mu, logvar = self.case.inputs((0, 4), torch.float32, place.device).tensors
        assert ops.free_bits_kl(mu, logvar, 0.5, reduction="sum", backend=place.backend).item() == 0
        assert ops.free_bits_kl(mu, logvar, 0.5, backend=place.backend).isnan()
