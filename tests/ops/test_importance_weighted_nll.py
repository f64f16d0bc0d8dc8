import math
from typing import Any

import pytest
import torch

import fastvae
from fastvae import ops

from . import support
from .cases import IMPORTANCE_WEIGHTED_NLL
from .loss_contract import LossContract
from .support import assert_accurate, assert_close, leaves

INF = math.inf
NAN = math.nan


def bound(place: Any, nll: torch.Tensor, log_ratio: torch.Tensor | None = None, **options: Any) -> torch.Tensor:
    log_ratio = torch.zeros_like(nll) if log_ratio is None else log_ratio
    return ops.importance_weighted_nll(nll, log_ratio, backend=place.backend, **{"reduction": "none", **options})


class TestImportanceWeightedNLL(LossContract):
    case = IMPORTANCE_WEIGHTED_NLL

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_one_sample_is_the_elbo_to_the_bit(self, place: Any, dtype: torch.dtype) -> None:
        nll, log_ratio = self.case.inputs((70, 1), dtype, place.device).tensors
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert torch.equal(bound(place, nll, log_ratio), (nll.to(wide) + log_ratio.to(wide)).flatten())
        tensors = leaves((nll, log_ratio))
        for gradient in torch.autograd.grad(bound(place, *tensors).sum(), tensors):
            assert torch.equal(gradient, torch.ones_like(nll))

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    @pytest.mark.parametrize("samples", [2, 50, 513, 1500, 5000])
    def test_many_samples(self, place: Any, samples: int, dtype: torch.dtype) -> None:
        inputs = self.case.inputs((2, min(samples, 1500) if place.interpreted else samples), dtype, place.device)
        for reduction in support.REDUCTIONS:
            assert_accurate(self.case, inputs, place.backend, reduction=reduction, weight=0.5)

    @pytest.mark.parametrize("samples", [3, 1300])
    @pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
    def test_log_weights_of_any_size(self, place: Any, offset: float, samples: int) -> None:
        # Whole numbers, so that the offset is exact in fp32; blocks that fall and blocks that rise.
        nll = torch.arange(float(samples), device=place.device).repeat(2, 1)
        nll[1] = nll[1].flip(0)
        leaf = (nll + offset).requires_grad_()
        loss = bound(place, leaf)
        truth = math.log(samples) - torch.logsumexp(-nll.double(), 1) + offset
        assert torch.allclose(loss.double(), truth, rtol=1e-6, atol=1e-6)
        if place.backend == "reference":
            return  # torch measures its gradient from the logsumexp, which is rounded to 1e-3 at 1e4
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        assert torch.allclose(gradient.double(), torch.softmax(-nll.double(), 1), rtol=1e-5, atol=1e-8)

    @support.not_finite
    @pytest.mark.parametrize("samples", [4, 1200])
    def test_what_is_not_finite(self, place: Any, samples: int) -> None:
        nll = torch.ones(6, samples, device=place.device)
        nll[1] = INF  # no sample has any weight
        nll[2, :-1] = INF  # one has
        nll[3, 1] = -INF
        nll[4, samples - 1] = NAN
        nll[5] = INF
        nll[5, 0] = NAN
        leaf = nll.clone().requires_grad_()
        loss = bound(place, leaf)
        expected = torch.tensor([1.0, INF, 1.0 + math.log(samples), -INF, NAN, NAN], device=place.device)
        assert torch.allclose(loss, expected, equal_nan=True)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        assert gradient[1].isnan().all()
        assert gradient[2, -1] == 1
        assert (gradient[2, :-1] == 0).all()
        assert gradient[3].isnan().sum() == 1
        assert gradient[4].isnan().all()
        assert gradient[5].isnan().all()
        for reduction in ("sum", "batchmean"):
            assert bound(place, nll[[0, 1, 2]], reduction=reduction).item() == INF
            assert bound(place, nll, reduction=reduction).isnan()

    def test_gradients_are_the_normalised_weights(self, place: Any) -> None:
        inputs = self.case.inputs((5, 7), torch.float64, place.device)
        tensors = leaves(inputs.tensors)
        weights = torch.softmax(-inputs.tensors[0] - inputs.tensors[1], 1)
        for reduction, factor in (("none", 1.0), ("sum", 1.0), ("batchmean", 0.2)):
            loss = bound(place, *tensors, reduction=reduction, weight=3.0)
            gradients = torch.autograd.grad(loss.sum(), tensors)
            assert_close(gradients, (3 * factor * weights,) * 2)
            assert gradients[0].data_ptr() != gradients[1].data_ptr() or place.backend == "reference"

    def test_it_is_the_sampled_elbo_of_one_sample_and_falls_to_minus_log_p(self, place: Any) -> None:
        if place.interpreted:
            pytest.skip("a statistic of the values, which other tests hold to the reference")
        # z ~ N(0, I), x | z ~ N(2 z, I) in two dimensions: x ~ N(0, 5 I). The posterior is N(0.4 x, I / 5); q is wider.
        x = torch.tensor([1.5, -0.5], dtype=torch.float64, device=place.device)
        minus_log_p = (0.1 * x.square() + 0.5 * math.log(2 * math.pi * 5)).sum().item()
        mu = (0.3 * x).repeat(4096, 1)
        logvar = torch.full((4096, 2), -1.0, dtype=x.dtype, device=place.device)
        noise = fastvae.Noise(7, device=place.device)
        losses = []
        for samples in (1, 2, 8, 64, 512):
            z, log_ratio = ops.reparameterize_log_ratio(mu, logvar, noise, samples=samples, backend=place.backend)
            nll = ops.gaussian_nll(
                2 * z.flatten(0, 1), x.repeat(4096 * samples, 1), full=True, reduction="none", backend=place.backend
            ).view(4096, samples)
            losses.append(ops.importance_weighted_nll(nll, log_ratio, backend=place.backend).item())
            if samples == 1:
                assert losses[0] == pytest.approx((nll + log_ratio).mean().item(), rel=1e-12)
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] == pytest.approx(minus_log_p, abs=5e-3)
        assert losses[0] > minus_log_p + 0.1
