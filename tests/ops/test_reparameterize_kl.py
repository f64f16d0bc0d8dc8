from typing import Any

import pytest
import torch

import fastvae
from fastvae import ops

from . import support
from .cases import REPARAMETERIZE_KL
from .loss_contract import LossContract
from .support import assert_close, error, leaves


class TestReparameterizeKL(LossContract):
    case = REPARAMETERIZE_KL

    @pytest.mark.parametrize("reduction", support.REDUCTIONS)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_it_is_reparameterize_and_gaussian_kl(self, place: Any, dtype: torch.dtype, reduction: str) -> None:
        mu, logvar = self.case.inputs(place.affordable((7, 33)), dtype, place.device).tensors
        noise = fastvae.Noise(3, 9, row_offset=2, stream=1, device=place.device)
        options = {"reduction": reduction, "weight": 0.5, "backend": place.backend}
        together, apart = leaves((mu, logvar)), leaves((mu, logvar))
        outputs = ops.reparameterize_kl(*together, noise, **options)
        separate = (
            ops.reparameterize(*apart, noise, backend=place.backend),
            ops.gaussian_kl(*apart, **options),
        )
        assert_close(outputs, separate)
        # The separate path rounds each gradient to the type before it adds them up.
        gradients = torch.autograd.grad(outputs, together, support.cotangents(outputs, 3.0))
        assert_close(gradients, torch.autograd.grad(separate, apart, support.cotangents(separate, 3.0)), factor=2)

    @pytest.mark.parametrize("shape", support.SHAPES, ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_a_key_draws_the_noise_of_the_specification(self, place: Any, dtype: Any, shape: tuple[int, ...]) -> None:
        support.skip_products(place, dtype, shape)
        shape = place.affordable(shape)
        mu, logvar = self.case.inputs(shape, dtype, place.device).tensors
        noise = fastvae.Noise(seed=2**40 + 7, step=3, row_offset=5, stream=2, device=place.device)
        tensors, exact = leaves((mu, logvar)), leaves((mu.double(), logvar.double()))
        outputs = ops.reparameterize_kl(*tensors, noise, reduction="sum", backend=place.backend)
        truth = self.case.eager(*exact, noise.draw(shape, torch.float64), reduction="sum")
        incoming = support.cotangents(outputs, 2.0)
        gradients = torch.autograd.grad(outputs, tensors, incoming)
        exact_gradients = torch.autograd.grad(truth, exact, [g.double() for g in incoming])
        for actual, expected in zip((*outputs, *gradients), (*truth, *exact_gradients), strict=True):
            assert error(actual, expected) <= support.TOLERANCE[actual.dtype]

    def test_a_split_batch_draws_the_same_and_its_kl_adds_up(self, place: Any) -> None:
        mu, logvar = self.case.inputs((11, 5), torch.float32, place.device).tensors
        options = {"reduction": "none", "backend": place.backend}
        z, kl = ops.reparameterize_kl(mu, logvar, fastvae.Noise(3, device=place.device), **options)
        for cut in (1, 4, 10) if place.interpreted else range(1, 11):
            parts = [
                ops.reparameterize_kl(
                    mu[rows], logvar[rows], fastvae.Noise(3, row_offset=rows.start, device=place.device), **options
                )
                for rows in (slice(0, cut), slice(cut, 11))
            ]
            assert torch.equal(torch.cat([part[0] for part in parts]), z)
            assert_close((torch.cat([part[1] for part in parts]),), (kl,))

    @pytest.mark.parametrize("used", [0, 1], ids=["z alone", "kl alone"])
    def test_one_output_may_go_unused(self, place: Any, used: int) -> None:
        inputs = self.case.inputs((6, 20), torch.float32, place.device)
        results = []
        for call, backend in ((self.case.fused, {"backend": place.backend}), (self.case.eager, {})):
            tensors = leaves(inputs.tensors)
            output = call(*tensors, *inputs.constants, **backend)[used]
            results.append(torch.autograd.grad(output, tensors, support.cotangents((output,), 2.0)))
        assert_close(*results)

    def test_backward_draws_the_noise_of_forward(self, place: Any) -> None:
        logvar = torch.zeros(4, 6, device=place.device, requires_grad=True)
        for noise in (None, fastvae.Noise(1, 1, device=place.device)):
            z, _ = ops.reparameterize_kl(torch.zeros_like(logvar), logvar, noise, backend=place.backend)
            (gradient,) = torch.autograd.grad(z.sum(), logvar)
            assert_close((gradient,), (0.5 * z.detach(),))

    def test_advancing_between_forward_and_backward_is_an_error(self, place: Any) -> None:
        if place.backend == "reference":
            pytest.skip("keeps its eps")
        noise = fastvae.Noise(1, 1, device=place.device)
        logvar = torch.zeros(4, 6, device=place.device, requires_grad=True)
        z, kl = ops.reparameterize_kl(torch.zeros_like(logvar), logvar, noise, backend=place.backend)
        noise.advance()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            (z.sum() + kl).backward()

    @pytest.mark.parametrize("shape", [(6, 10), (4, 3, 8, 8)], ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_the_halves_of_one_packed_head(self, place: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        mu, logvar = self.case.inputs(shape, dtype, place.device).tensors
        eps = self.case.inputs(shape, dtype, place.device).constants[0]
        head = torch.cat((mu, logvar), 1).requires_grad_()
        truth_head = head.detach().double().requires_grad_()
        outputs = ops.reparameterize_kl(*head.chunk(2, 1), eps, backend=place.backend)
        truth = self.case.eager(*truth_head.chunk(2, 1), eps.double())
        incoming = support.cotangents(outputs, 2.0)
        (gradient,) = torch.autograd.grad(outputs, head, incoming)
        (truth_gradient,) = torch.autograd.grad(truth, truth_head, [g.double() for g in incoming])
        for actual, expected in zip((*outputs, gradient), (*truth, truth_gradient), strict=True):
            assert error(actual, expected) <= support.TOLERANCE[actual.dtype]

    def test_digits_near_logvar_zero(self, place: Any) -> None:
        logvar = torch.tensor([[1e-3], [-1e-3]], device=place.device)
        mu = torch.zeros_like(logvar)
        _, kl = ops.reparameterize_kl(mu, logvar, mu, reduction="none", backend=place.backend)
        exact = 0.5 * (torch.expm1(logvar.double()) - logvar.double()).flatten()
        assert ((kl.double() - exact).abs() / exact).max().item() <= 2.0**-22 / 1e-3

    @support.not_finite
    def test_the_ends_of_the_range(self, place: Any) -> None:
        logvar = torch.tensor([[-90.0], [80.0], [89.0], [float("nan")]], device=place.device)
        mu = torch.zeros_like(logvar)
        z, kl = ops.reparameterize_kl(mu, logvar, torch.ones_like(mu), reduction="none", backend=place.backend)
        assert kl.isfinite().tolist() == [True, True, False, False]
        assert z.isfinite().flatten().tolist() == [True, True, True, False]
        exact = 0.5 * (torch.expm1(logvar.double()) - logvar.double()).flatten()
        assert torch.allclose(kl[:2].double(), exact[:2], rtol=1e-5, atol=0)
        assert kl[2].item() == float("inf")
