from typing import Any

import pytest
import torch

from fastvae import ops

from . import support
from .cases import GAUSSIAN_KL
from .loss_contract import LossContract
from .support import assert_accurate, assert_close, error


def relative_error(actual: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest over the elements, each relative to itself."""
    return ((actual.double() - exact).abs() / exact.abs()).max().item()


class TestGaussianKL(LossContract):
    case = GAUSSIAN_KL

    @pytest.mark.parametrize("size", [1e-3, 1e-4, 1e-5, 1e-6])
    def test_digits_near_logvar_zero(self, place: Any, size: float) -> None:
        # The largest *relative* error over rows of one element: no large neighbour may hide it. The KL is logvar**2/4
        # there, left over from a difference of two numbers near logvar: the bound is one ulp of those.
        logvar = torch.tensor([[size], [-size]], device=place.device).requires_grad_()
        mu = torch.zeros_like(logvar)
        kl = ops.gaussian_kl(mu, logvar, reduction="none", backend=place.backend)
        exact = 0.5 * (torch.expm1(logvar.double()) - logvar.double()).flatten()
        naive = -0.5 * (1 + logvar - mu**2 - logvar.exp()).flatten()
        bound = 2.0**-22 / size
        assert relative_error(kl, exact) <= bound
        assert relative_error(naive, exact) > bound, "else this test shows nothing"

    @pytest.mark.parametrize("size", [1e-3, 1e-4, 1e-5, 1e-6])
    def test_digits_of_the_gradient_near_logvar_zero(self, place: Any, size: float) -> None:
        if place.backend == "reference":
            pytest.skip("autograd's derivative of expm1 is expm1 + 1, which rounds")
        logvar = torch.tensor([[size], [-size]], device=place.device).requires_grad_()
        exact = 0.5 * torch.expm1(logvar.double())
        naive = 0.5 * (logvar.exp() - 1)
        for reduction in ("sum", "none"):
            kl = ops.gaussian_kl(torch.zeros_like(logvar), logvar, reduction=reduction, backend=place.backend)
            (gradient,) = torch.autograd.grad(kl.sum(), logvar)
            assert relative_error(gradient, exact) <= 1e-6
        assert relative_error(naive, exact) > 1e-6, "else this test shows nothing"

    def test_from_vanishing_to_overflowing_variance(self, place: Any) -> None:
        logvar = torch.linspace(-90, 80, 35, device=place.device)[:, None].requires_grad_()
        kl = ops.gaussian_kl(torch.zeros_like(logvar), logvar, reduction="none", backend=place.backend)
        exact = 0.5 * (torch.expm1(logvar.double()) - logvar.double()).flatten()
        assert torch.allclose(kl.double(), exact, rtol=1e-5, atol=0)
        kl.sum().backward()
        assert torch.allclose(logvar.grad.double(), 0.5 * torch.expm1(logvar.detach().double()), rtol=1e-5, atol=0)

    @support.not_finite
    def test_logvar_past_fp32_is_infinite_and_not_wrong(self, place: Any) -> None:
        logvar = torch.tensor([[88.0], [89.0], [200.0]], device=place.device).requires_grad_()
        kl = ops.gaussian_kl(torch.zeros_like(logvar), logvar, reduction="none", backend=place.backend)
        assert kl.isinf().tolist() == [False, True, True]
        assert (kl > 0).all()
        kl.sum().backward()
        assert logvar.grad.isinf().flatten().tolist() == [False, True, True]

    @support.not_finite
    def test_fp16_is_computed_in_fp32(self, place: Any) -> None:
        # exp(12) = 162755 is past fp16 (65504); the loss in fp32 holds it, the gradient in fp16 cannot.
        mu, logvar = (torch.tensor([[v]], dtype=torch.float16, device=place.device) for v in (0.0, 12.0))
        kl = ops.gaussian_kl(mu, logvar, backend=place.backend)
        assert kl.dtype == torch.float32
        assert kl.item() == pytest.approx(0.5 * (162754.791419 - 1 - 12), rel=1e-6)
        assert_accurate(self.case, self.case.inputs((7, 33), torch.float16, place.device), place.backend)

    @support.not_finite
    @pytest.mark.parametrize("reduction", support.REDUCTIONS)
    @pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
    @pytest.mark.parametrize("which", [0, 1])
    def test_what_is_not_finite_stays_so(self, place: Any, bad: float, which: int, reduction: str) -> None:
        inputs = [torch.zeros(3, 40, device=place.device) for _ in range(2)]
        inputs[which][1, 17] = bad
        loss = ops.gaussian_kl(*inputs, reduction=reduction, backend=place.backend)
        assert not (loss[1] if reduction == "none" else loss).isfinite()
        if reduction == "none":
            assert loss[[0, 2]].tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("shape", [(6, 10), (4, 3, 8, 8)], ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_the_halves_of_one_packed_head(self, place: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        mu, logvar = self.case.inputs(shape, dtype, place.device).tensors
        head = torch.cat((mu, logvar), 1).requires_grad_()
        for reduction in support.REDUCTIONS:
            loss = ops.gaussian_kl(*head.chunk(2, 1), reduction=reduction, backend=place.backend)
            incoming = torch.linspace(1, 2, loss.numel(), device=place.device).reshape(loss.shape).to(loss.dtype)
            (gradient,) = torch.autograd.grad(loss, head, incoming)
            truth_head = head.detach().double().requires_grad_()
            (truth,) = self.case.eager(*truth_head.chunk(2, 1), reduction=reduction)
            (truth_gradient,) = torch.autograd.grad(truth, truth_head, incoming.double())
            assert error(loss, truth) <= support.TOLERANCE[loss.dtype]
            assert error(gradient, truth_gradient) <= support.TOLERANCE[dtype]

    def test_one_tensor_as_both_arguments(self, place: Any) -> None:
        x = self.case.inputs((6, 20), torch.float32, place.device).tensors[0].requires_grad_()
        gradients = [
            torch.autograd.grad(call(x, x, **backend)[0], x)
            for call, backend in ((self.case.fused, {"backend": place.backend}), (self.case.eager, {}))
        ]
        assert_close(*gradients)

    @pytest.mark.slow
    def test_past_two_to_the_31_elements(self, place: Any) -> None:
        if place.backend == "reference" or place.interpreted:
            pytest.skip("needs a backend that reads an expanded row without a copy, at speed")
        rows = 2**15 + 3
        columns = 2**16
        mu = torch.ones(1, columns, dtype=torch.bfloat16, device=place.device).expand(rows, columns)
        total = ops.gaussian_kl(mu, torch.zeros_like(mu[:1]).expand_as(mu), reduction="sum", backend=place.backend)
        assert total.item() == pytest.approx(0.5 * rows * columns, rel=1e-6)
