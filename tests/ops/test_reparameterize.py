import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch.utils.checkpoint import checkpoint

import fastvae
from fastvae import ops

from . import support
from .cases import REPARAMETERIZE
from .contract import OpContract
from .support import assert_close, error, leaves


def draw(place: Any, mu: torch.Tensor, logvar: torch.Tensor, noise: Any = None) -> torch.Tensor:
    return ops.reparameterize(mu, logvar, noise, backend=place.backend)


class TestReparameterize(OpContract):
    case = REPARAMETERIZE

    @pytest.mark.parametrize("shape", support.SHAPES, ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_a_key_draws_the_noise_of_the_specification(self, place: Any, dtype: Any, shape: tuple[int, ...]) -> None:
        support.skip_products(place, dtype, shape)
        shape = place.affordable(shape)
        mu, logvar = self.case.inputs(shape, dtype, place.device).tensors
        noise = fastvae.Noise(seed=2**40 + 7, step=3, row_offset=5, stream=2, device=place.device)
        eps = noise.draw(shape, torch.float64)
        tensors = leaves((mu, logvar))
        z = draw(place, *tensors, noise)
        incoming = support.cotangents((z,))
        gradients = torch.autograd.grad(z, tensors, incoming)
        exact = leaves((mu.double(), logvar.double()))
        (truth,) = self.case.eager(*exact, eps)
        truth_gradients = torch.autograd.grad(truth, exact, [g.double() for g in incoming])
        assert z.dtype == dtype
        assert z.is_contiguous()
        for actual, expected in zip((z, *gradients), (truth, *truth_gradients), strict=True):
            assert error(actual, expected) <= support.TOLERANCE[dtype]

    def test_explicit_eps_gives_what_its_key_gives(self, place: Any) -> None:
        mu, logvar = self.case.inputs((6, 20), torch.float32, place.device).tensors
        noise = fastvae.Noise(seed=1, step=2, device=place.device)
        assert_close((draw(place, mu, logvar, noise),), (draw(place, mu, logvar, noise.draw(mu.shape)),))

    @pytest.mark.parametrize("columns", [1, 2, 3, 5, 20])
    def test_a_split_batch_draws_the_same_to_the_bit(self, place: Any, columns: int) -> None:
        mu, logvar = self.case.inputs((11, columns), torch.float32, place.device).tensors
        whole = draw(place, mu, logvar, fastvae.Noise(3, 4, device=place.device))
        for cut in range(1, 11):
            parts = [
                draw(place, mu[rows], logvar[rows], fastvae.Noise(3, 4, row_offset=rows.start, device=place.device))
                for rows in (slice(0, cut), slice(cut, 11))
            ]
            assert torch.equal(torch.cat(parts), whole)

    def test_rows_far_past_two_to_the_32_elements(self, place: Any) -> None:
        mu = torch.zeros(3, 7, device=place.device)
        noise = fastvae.Noise(3, 4, row_offset=2**40 + 1, device=place.device)
        z = draw(place, mu, mu, noise)
        assert_close((z,), (noise.draw(mu.shape),))
        assert not torch.equal(z, draw(place, mu, mu, fastvae.Noise(3, 4, row_offset=1, device=place.device)))

    @pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**63 - 1])
    @pytest.mark.parametrize("step", [0, 2**31, 2**32 - 1])
    def test_every_word_of_the_key_counts(self, place: Any, seed: int, step: int) -> None:
        mu = torch.zeros(2, 5, device=place.device)
        for stream in (0, 2**31 - 1):
            noise = fastvae.Noise(seed, step, stream=stream, device=place.device)
            assert_close((draw(place, mu, mu, noise),), (noise.draw(mu.shape),))

    def test_none_is_ruled_by_manual_seed(self, place: Any) -> None:
        mu = torch.zeros(4, 6, device=place.device)
        torch.manual_seed(5)
        first, second = draw(place, mu, mu), draw(place, mu, mu)
        torch.manual_seed(5)
        assert torch.equal(draw(place, mu, mu), first)
        assert not torch.equal(first, second)

    def test_backward_draws_the_noise_of_forward(self, place: Any) -> None:
        mu = torch.zeros(4, 6, device=place.device)
        logvar = torch.zeros_like(mu, requires_grad=True)
        for noise in (None, fastvae.Noise(1, 1, device=place.device)):
            z = draw(place, mu, logvar, noise)
            torch.randn(3, device=place.device)
            (gradient,) = torch.autograd.grad(z.sum(), logvar)
            assert_close((gradient,), (0.5 * z.detach(),))

    def test_advancing_between_forward_and_backward_is_an_error(self, place: Any) -> None:
        if place.backend == "reference":
            pytest.skip("keeps its eps")
        noise = fastvae.Noise(1, 1, device=place.device)
        logvar = torch.zeros(4, 6, device=place.device, requires_grad=True)
        z = draw(place, torch.zeros_like(logvar), logvar, noise)
        noise.advance()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            z.sum().backward()

    def test_advancing_after_backward_draws_anew(self, place: Any) -> None:
        noise = fastvae.Noise(1, 1, device=place.device)
        logvar = torch.zeros(4, 6, device=place.device, requires_grad=True)
        drawn = []
        for _ in range(2):
            z = draw(place, torch.zeros_like(logvar), logvar, noise)
            z.sum().backward()
            drawn.append(z.detach())
            noise.advance()
        assert not torch.equal(*drawn)
        again = fastvae.Noise(1, 2, device=place.device)
        assert torch.equal(draw(place, torch.zeros_like(logvar), logvar, again), drawn[1])

    def test_a_state_that_is_shared_follows(self, place: Any) -> None:
        state = torch.tensor([7, 0], device=place.device)
        noise = fastvae.Noise.from_state(state, 2, stream=1)
        mu = torch.zeros(4, 6, device=place.device)
        state[1] += 3
        assert torch.equal(
            draw(place, mu, mu, noise), draw(place, mu, mu, fastvae.Noise(7, 3, 2, stream=1, device=place.device))
        )

    def test_checkpointing_recomputes_with_the_same_noise(self, place: Any) -> None:
        logvar = torch.zeros(4, 6, device=place.device, requires_grad=True)

        def block(logvar: torch.Tensor) -> torch.Tensor:
            return draw(place, torch.zeros_like(logvar), logvar).square()

        z_squared = checkpoint(block, logvar, use_reentrant=False)
        torch.randn(3, device=place.device)
        z_squared.sum().backward()
        # d z**2 / d logvar = 2 z * z/2 = z**2 holds for the noise of the forward and for no other.
        assert_close((logvar.grad,), (z_squared.detach(),))

    @support.not_finite
    def test_the_ends_of_logvar(self, place: Any) -> None:
        logvar = torch.tensor([[-200.0, -90.0, 80.0, 170.0]], device=place.device)
        z = draw(place, torch.zeros_like(logvar), logvar, torch.ones_like(logvar))
        assert error(z[0, :3], torch.tensor([math.exp(-100), math.exp(-45), math.exp(40)])) < 1e-5
        assert z[0, 1].item() == pytest.approx(math.exp(-45), rel=1e-5)
        assert z[0, 3].item() == pytest.approx(math.exp(85), rel=1e-5)
        bad = torch.tensor([[float("nan"), float("inf"), 180.0]], device=place.device)
        assert not draw(place, torch.zeros_like(bad), bad, torch.ones_like(bad)).isfinite().any()

    def test_fp16_is_computed_in_fp32(self, place: Any) -> None:
        # exp(12) is past fp16 and exp(-24) is below it; exp(6) and exp(-12) times 60 are not.
        logvar = torch.tensor([[12.0, -24.0]], dtype=torch.float16, device=place.device)
        eps = torch.tensor([[1.0, 60.0]], dtype=torch.float16, device=place.device)
        z = draw(place, torch.zeros_like(logvar), logvar, eps)
        assert z.flatten().tolist() == pytest.approx([math.exp(6), 60 * math.exp(-12)], rel=1e-3)

    def test_moments_of_the_draws(self, place: Any) -> None:
        rows = 2**13 if place.interpreted else 2**20
        mu = torch.full((rows, 1), 2.0, device=place.device)
        z = draw(place, mu, torch.full_like(mu, math.log(9.0)), fastvae.Noise(11, device=place.device)).double()
        assert z.mean().item() == pytest.approx(2.0, abs=5 * 3 / math.sqrt(rows))
        assert z.var().item() == pytest.approx(9.0, rel=5 * math.sqrt(2 / rows))
        assert stats.kstest(((z - 2.0) / 3.0).flatten().cpu().numpy(), "norm").pvalue > 1e-3
