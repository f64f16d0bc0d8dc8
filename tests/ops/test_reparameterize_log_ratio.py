import math
from typing import Any

import pytest
import torch
from torch.distributions import Normal

import fastvae
from fastvae import ops

from . import support
from .cases import REPARAMETERIZE_LOG_RATIO
from .contract import OpContract
from .support import assert_close, error, leaves

ESTIMATORS = ("iwae", "stl", "dreg")
ROWS = 4
SAMPLES = 5
EVENT = 6


def draw(
    place: Any, mu: torch.Tensor, logvar: torch.Tensor, noise: Any = None, samples: int = SAMPLES, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return ops.reparameterize_log_ratio(mu, logvar, noise, samples=samples, backend=place.backend, **options)


def toy(device: str) -> tuple[torch.Tensor, ...]:
    """mu, logvar, eps, the decoder's weights, x, and a factor for the loss of each row."""
    generator = torch.Generator().manual_seed(5)

    def new(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)

    factors = torch.tensor([1.0, 0.25, -2.0, 0.0], dtype=torch.float64, device=device)
    return new(ROWS, EVENT), new(ROWS, EVENT), new(ROWS, SAMPLES, EVENT), new(EVENT, 3), new(ROWS, 3), factors


def decoder_nll(z: torch.Tensor, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (torch.sin(z @ theta) - x[:, None]).square().sum(2)


def by_the_papers(estimator: str, device: str) -> tuple[torch.Tensor, ...]:
    """The gradients in mu, logvar and theta as the papers' equations have them, by torch's own densities."""
    mu, logvar, eps, theta, x, factors = toy(device)
    mu, logvar, theta = leaves((mu, logvar, theta))
    sigma = (0.5 * logvar)[:, None].exp()
    z = mu[:, None] + sigma * eps
    q = Normal(mu[:, None], sigma)
    if estimator != "iwae":
        q = Normal(mu[:, None].detach(), sigma.detach())
    log_w = -decoder_nll(z, theta, x) + Normal(0.0, 1.0).log_prob(z).sum(2) - q.log_prob(z).sum(2)
    normalised = torch.softmax(log_w, 1).detach()
    # Burda et al. 2016, equation 14; Roeder et al. 2017, section 4 (the same with q's parameters stopped);
    # Tucker et al. 2019, equation 8 (the weights squared, for the encoder alone).
    per_row = -(normalised * log_w).sum(1)
    squared = -(normalised.square() * log_w).sum(1)
    of_encoder = squared if estimator == "dreg" else per_row
    encoder = torch.autograd.grad((factors * of_encoder).sum(), (mu, logvar), retain_graph=True)
    return (*encoder, *torch.autograd.grad((factors * per_row).sum(), theta))


class TestReparameterizeLogRatio(OpContract):
    case = REPARAMETERIZE_LOG_RATIO

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_estimators_are_those_of_the_papers(self, place: Any, estimator: str) -> None:
        mu, logvar, eps, theta, x, factors = toy(place.device)
        mu, logvar, theta = leaves((mu, logvar, theta))
        z, log_ratio = draw(place, mu, logvar, eps, estimator=estimator)
        loss = ops.importance_weighted_nll(decoder_nll(z, theta, x), log_ratio, reduction="none", backend=place.backend)
        gradients = torch.autograd.grad((factors * loss).sum(), (mu, logvar, theta))
        for actual, expected in zip(gradients, by_the_papers(estimator, place.device), strict=True):
            assert error(actual, expected) < 1e-9
        assert (gradients[0][3] == 0).all(), "a row whose loss has no factor"

    def test_the_estimators_differ(self) -> None:
        gradients = [by_the_papers(estimator, "cpu") for estimator in ESTIMATORS]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert error(gradients[a][0], gradients[b][0]) > 0.01, "else the test above shows nothing"
            assert torch.equal(gradients[a][2], gradients[b][2])

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(3, 20), (2, 5), (2, 150), (3, 2, 4), (2,), (0, 4), (4, 0)], ids=str)
    def test_a_key_draws_the_noise_of_the_specification(
        self, place: Any, shape: tuple[int, ...], dtype: torch.dtype, estimator: str
    ) -> None:
        support.skip_products(place, dtype, shape, [(2, 5), (3, 2, 4)])
        mu, logvar = self.case.inputs(shape, dtype, place.device).tensors
        noise = fastvae.Noise(seed=2**40 + 7, step=3, row_offset=5, stream=2, device=place.device)
        tensors, exact = leaves((mu, logvar)), leaves((mu.double(), logvar.double()))
        outputs = draw(place, *tensors, noise, 3, estimator=estimator)
        eps = noise.draw((shape[0], 3, *shape[1:]), torch.float64)
        truth = fastvae.reference.reparameterize_log_ratio(*exact, eps, estimator=estimator)
        assert outputs[0].shape == (shape[0], 3, *shape[1:])
        assert outputs[0].is_contiguous()
        incoming = (support.cotangents(outputs[:1])[0], torch.rand_like(outputs[1]))
        gradients = torch.autograd.grad(outputs, tensors, incoming)
        truth_gradients = torch.autograd.grad(truth, exact, [g.double() for g in incoming])
        for actual, expected in zip((*outputs, *gradients), (*truth, *truth_gradients), strict=True):
            assert error(actual, expected) <= support.TOLERANCE[actual.dtype]

    @pytest.mark.parametrize(("samples", "columns"), [(1, 3), (2, 1), (3, 5), (5, 20), (2, 130)])
    def test_a_split_batch_draws_the_same_to_the_bit(self, place: Any, samples: int, columns: int) -> None:
        mu, logvar = self.case.inputs((5, columns), torch.float32, place.device).tensors
        whole = draw(place, mu, logvar, fastvae.Noise(3, 4, row_offset=2**40, device=place.device), samples)
        for cut in range(1, 5):
            parts = [
                draw(
                    place, mu[rows], logvar[rows],
                    fastvae.Noise(3, 4, row_offset=2**40 + rows.start, device=place.device), samples,
                )
                for rows in (slice(0, cut), slice(cut, 5))
            ]  # fmt: skip
            assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
            assert_close((torch.cat([part[1] for part in parts]),), whole[1:])

    def test_one_sample_is_that_of_reparameterize(self, place: Any) -> None:
        mu, logvar = self.case.inputs((6, 10), torch.float32, place.device).tensors
        noise = fastvae.Noise(1, device=place.device)
        z, log_ratio = draw(place, mu, logvar, noise, 1)
        assert_close((z[:, 0],), (ops.reparameterize(mu, logvar, noise, backend=place.backend),))
        q, p = Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)
        exact = (q.log_prob(z[:, 0]) - p.log_prob(z[:, 0])).sum(1, keepdim=True)
        assert torch.allclose(log_ratio, exact, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("estimator", ["stl", "dreg"])
    def test_no_variance_where_q_is_the_posterior(self, place: Any, estimator: str) -> None:
        # z ~ N(0, 1), x | z ~ N(2 z, 1): the posterior is N(0.4 x, 1/5), where each sample's gradient is 0.
        x = torch.tensor([[1.0], [-3.0]], dtype=torch.float64, device=place.device)
        mu, logvar = leaves((0.4 * x, torch.full_like(x, -math.log(5.0))))
        z, log_ratio = draw(place, mu, logvar, fastvae.Noise(3, device=place.device), 3, estimator=estimator)
        nll = 0.5 * (2 * z - x[:, None]).square().sum(2)
        loss = ops.importance_weighted_nll(nll, log_ratio, backend=place.backend)
        for gradient in torch.autograd.grad(loss, (mu, logvar)):
            assert gradient.abs().max() < 1e-12

    @pytest.mark.parametrize("used", [0, 1], ids=["z alone", "log_ratio alone"])
    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_one_output_may_go_unused(self, place: Any, estimator: str, used: int) -> None:
        mu, logvar, eps = toy(place.device)[:3]
        results = []
        for backend in (place.backend, "reference"):
            tensors = leaves((mu, logvar))
            outputs = ops.reparameterize_log_ratio(*tensors, eps, samples=SAMPLES, estimator=estimator, backend=backend)
            if estimator == "dreg" and used == 0:
                with pytest.raises(RuntimeError, match="takes its weights from the gradient of log_ratio, but"):
                    outputs[used].sum().backward()
            else:
                incoming = torch.linspace(0.5, 2.0, outputs[used].numel(), dtype=torch.float64, device=place.device)
                results.append(torch.autograd.grad(outputs[used], tensors, incoming.view_as(outputs[used])))
        if results:
            assert_close(*results)

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_many_samples(self, place: Any, estimator: str) -> None:
        mu, logvar = self.case.inputs((3, 4), torch.float32, place.device).tensors
        samples = 40 if place.interpreted else 3000
        noise = fastvae.Noise(3, device=place.device)
        results = []
        for backend, kind in ((place.backend, torch.float32), ("reference", torch.float64)):
            tensors = leaves((mu.to(kind), logvar.to(kind)))
            z, log_ratio = ops.reparameterize_log_ratio(
                *tensors, noise, samples=samples, estimator=estimator, backend=backend
            )
            loss = ops.importance_weighted_nll(z.square().sum(2), log_ratio, backend=backend)
            results.append((loss, *torch.autograd.grad(loss, tensors)))
        for actual, expected in zip(*results, strict=True):
            assert error(actual, expected) < 1e-5

    @support.not_finite
    def test_the_ends_of_logvar(self, place: Any) -> None:
        logvar = torch.tensor([[-90.0], [80.0], [90.0], [math.nan]], device=place.device)
        mu = torch.ones_like(logvar)
        eps = torch.ones(4, 2, 1, device=place.device)
        tensors = leaves((mu, logvar))
        z, log_ratio = draw(place, *tensors, eps, 2, estimator="stl")
        assert z[:, 0, 0].isfinite().tolist() == [True, True, True, False]
        assert log_ratio[:, 0].isfinite().tolist() == [True, True, False, False]
        exact = 0.5 * ((1 + (0.5 * logvar[:2].double()).exp()).square() - 1 - logvar[:2].double())
        assert torch.allclose(log_ratio[:2].double(), exact.expand(2, 2), rtol=1e-5, atol=0)
        gradients = torch.autograd.grad(log_ratio.sum(), tensors)
        assert all(gradient[:2].isfinite().all() for gradient in gradients)
