import re
from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from fastvae import ops

from . import support
from .cases import GAUSSIAN_PRIOR_KL
from .loss_contract import LossContract
from .support import assert_close, leaves, value_and_grad


class TestGaussianPriorKL(LossContract):
    case = GAUSSIAN_PRIOR_KL

    def test_against_torch(self, place: Any) -> None:
        tensors = self.case.inputs((5, 3, 4), torch.float64, place.device).tensors
        kl = ops.gaussian_prior_kl(*tensors, reduction="none", backend=place.backend)
        mu, logvar, prior_mu, prior_logvar = tensors
        exact = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(prior_mu, (prior_logvar / 2).exp())).sum((1, 2))
        torch.testing.assert_close(kl, exact)

    def test_a_standard_normal_prior_gives_gaussian_kl(self, place: Any) -> None:
        mu, logvar, *_ = self.case.inputs((6, 20), torch.float32, place.device).tensors
        prior = torch.zeros(20, device=place.device).expand(6, 20)
        options = {"reduction": "none", "backend": place.backend}
        assert_close(
            (ops.gaussian_prior_kl(mu, logvar, prior, prior, **options),), (ops.gaussian_kl(mu, logvar, **options),)
        )

    @pytest.mark.parametrize("reduction", support.REDUCTIONS)
    def test_a_learned_vector_gets_the_sum_of_its_rows_gradients(self, place: Any, reduction: str) -> None:
        mu, logvar, prior_mu, prior_logvar = self.case.inputs((6, 20), torch.float32, place.device).tensors
        vectors = leaves((prior_mu[:1], prior_logvar[:1]))
        loss = ops.gaussian_prior_kl(
            mu, logvar, *(vector.expand(6, 20) for vector in vectors), reduction=reduction, backend=place.backend
        )
        gradients = torch.autograd.grad(loss.sum(), vectors)
        rows = support.Inputs((mu, logvar, *(vector.detach().expand(6, 20).contiguous() for vector in vectors)), ())
        scalar = "batchmean" if reduction == "batchmean" else "sum"
        expected = value_and_grad(self.case.eager, rows, reduction=scalar)[1]
        assert_close(gradients, tuple(gradient.sum(0, keepdim=True) for gradient in expected[2:]), factor=2)

    @pytest.mark.parametrize("size", [1e-3, 1e-4, 1e-5])
    def test_digits_where_the_two_nearly_agree(self, place: Any, size: float) -> None:
        prior_logvar = torch.tensor([[-2.0], [1.0]], device=place.device)
        logvar = prior_logvar + size
        mu = torch.ones_like(prior_logvar)
        kl = ops.gaussian_prior_kl(mu, logvar, mu, prior_logvar, reduction="none", backend=place.backend)
        d = (logvar.double() - prior_logvar.double()).flatten()
        exact = 0.5 * (torch.expm1(d) - d)
        assert ((kl.double() - exact).abs() / exact).max().item() <= 2.0**-22 / size

    @support.not_finite
    def test_the_ends_of_the_range(self, place: Any) -> None:
        mu = torch.full((5, 1), 1e-3, device=place.device)
        prior_mu = torch.zeros(5, 1, device=place.device)
        logvar = torch.tensor([[0.0], [80.0], [-90.0], [90.0], [float("nan")]], device=place.device)
        prior_logvar = torch.tensor([[-90.0], [0.0], [80.0], [0.0], [0.0]], device=place.device)
        kl = ops.gaussian_prior_kl(mu, logvar, prior_mu, prior_logvar, reduction="none", backend=place.backend)
        assert kl.isfinite().tolist() == [False, True, True, False, False]
        d = (logvar - prior_logvar).double().flatten()
        exact = 0.5 * (torch.expm1(d) - d + (1e-6 * torch.exp(-prior_logvar.double()).flatten()))
        assert torch.allclose(kl[1:3].double(), exact[1:3], rtol=1e-5)
        wide = torch.tensor([[-90.0]], device=place.device)
        narrow = ops.gaussian_prior_kl(mu[:1], wide, prior_mu[:1], wide, backend=place.backend)
        assert narrow.item() == pytest.approx(0.5e-6 * torch.tensor(90.0).double().exp().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("place_of", "bad", "exception", "message"),
    [
        (2, torch.zeros(3), ValueError, "mu has shape (2, 3), but prior_mu has (3,): both need the same"),
        (3, torch.zeros(1, 3), ValueError, "prior_mu has shape (2, 3), but prior_logvar has (1, 3): both need"),
        (2, torch.zeros(2, 3).double(), TypeError, "mu is torch.float32, but prior_mu is torch.float64: both need"),
        (3, torch.zeros(2, 3).half(), TypeError, "prior_mu is torch.float32, but prior_logvar is torch.float16: both"),
    ],
)
def test_bad_priors(backend: str, place_of: int, bad: Any, exception: type[Exception], message: str) -> None:
    tensors = [torch.zeros(2, 3) for _ in range(4)]
    tensors[place_of] = bad
    with pytest.raises(exception, match=re.escape(message)):
        ops.gaussian_prior_kl(*tensors, backend=backend)


def test_a_weight_in_fp64_keeps_its_digits_and_the_loss_its_type(place: Any) -> None:
    weight = torch.tensor(1 / 3, dtype=torch.float64, device=place.device)
    x = torch.full((2, 3), 1.5, dtype=torch.float64, device=place.device)
    assert ops.gaussian_kl(x, x * 0, weight=weight, reduction="sum", backend=place.backend).item() == 6.75 / 3
    assert ops.gaussian_kl(x.float(), x.float() * 0, weight=weight, backend=place.backend).dtype == torch.float32
