"""Kernels on small tensors that reach every line of free_bits_kl and categorical_nll, and the corners of others.

All shapes, types and reductions are in test_ops.py, which is slow.
"""

from collections.abc import Callable
from typing import Any

import fastvae.kernels._launch as launch
import fastvae.kernels.categorical_nll as categorical
import fastvae.kernels.free_bits_kl as free_bits
import fastvae.kernels.importance_weighted_nll as importance_weighted
import pytest
import torch
from torch import Tensor

from fastvae import ops
from fastvae.ops.internal.record_step import record_step_

NAN, INF = float("nan"), float("inf")


def both(function: Callable[..., Tensor], *inputs: Tensor, bound: float = 1e-6) -> None:
    """Compare value and gradients on Triton with the eager reference in fp64."""
    results = []
    for backend, dtype in (("triton", None), ("reference", torch.float64)):
        leaves = [(x if dtype is None else x.to(dtype)).detach().requires_grad_() for x in inputs]
        output = function(*leaves, backend=backend)
        factors = torch.linspace(0.5, 1.5, output.numel(), dtype=torch.float64).view(output.shape).to(output.dtype)
        results.append([output, *torch.autograd.grad((output * factors).sum(), leaves)])
    for actual, expected in zip(*results, strict=True):
        scale = max(1.0, float(expected.detach().abs().amax()))
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=bound * scale)


def latents(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mu and logvar as the halves of one packed head, so that a row stride is twice the length of a row."""
    generator = torch.Generator().manual_seed(sum(shape))
    head = torch.randn(shape[0], 2, *shape[1:], generator=generator)
    return head[:, 0], head[:, 1]


@pytest.fixture(params=[None, 2**30, 0], ids=["one tile", "many tiles", "offsets in 64 bits"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have programs take all rows and columns at once, or loop over tiles of 2 columns."""
    if request.param is not None:
        monkeypatch.setattr(free_bits, "_TILE", 4)
        monkeypatch.setattr(free_bits, "_MAX_COLUMNS", 2)
        monkeypatch.setattr(free_bits, "_PROGRAMS", 8)  # two a block of columns
        monkeypatch.setattr(free_bits, "_INT32_REACH", request.param)
        monkeypatch.setattr(launch, "_INT32_REACH", request.param)


@pytest.mark.parametrize(("shape", "groups"), [((5, 6), None), ((5, 6), 3), ((3, 2, 4), 2), ((5, 7), 1)], ids=str)
@pytest.mark.parametrize("reduction", ["sum", "batchmean"])
def test_free_bits(tiles: None, shape: tuple[int, ...], groups: int | None, reduction: str) -> None:
    mu, logvar = latents(shape)
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar)
    of_groups = kl.mean(0).flatten().view(groups or shape[1], -1).sum(1)
    free = 0.9 * of_groups.mean().item()  # so that some groups are charged, and some are free
    assert groups == 1 or 0 < (of_groups < free).sum() < len(of_groups)

    def function(mu: Tensor, logvar: Tensor, backend: str) -> Tensor:
        weight = torch.tensor(0.3)
        options = {"groups": groups, "reduction": reduction, "weight": weight, "backend": backend}
        return ops.free_bits_kl(mu, logvar, free, **options)

    both(function, mu, logvar)


def test_free_bits_of_known_groups() -> None:
    # The mean KLs of the columns are 0.5, exactly the threshold; 0.125; 2; and that of logvar = 3.
    mu = torch.tensor([[1.0, 0.5, 2.0, 0.0], [1.0, -0.5, -2.0, 0.0]]).requires_grad_()
    logvar = torch.zeros(2, 4)
    logvar[:, 3] = 3.0
    logvar.requires_grad_()
    own = 0.5 * (torch.tensor(3.0).exp().item() - 1 - 3)
    loss = ops.free_bits_kl(mu, logvar, 0.5, reduction="batchmean", weight=2.0, backend="triton")
    assert loss.item() == pytest.approx(2 * (0.5 + 0.5 + 2 + own))
    loss.backward()
    assert mu.grad.tolist() == [[0, 0, 2.0, 0], [0, 0, -2.0, 0]]
    slope = 0.5 * (torch.tensor(3.0).exp().item() - 1)
    assert logvar.grad[0].tolist() == [0, 0, 0, pytest.approx(slope)]


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_free_bits_keep_what_is_not_finite_in_its_group() -> None:
    mu, logvar = (x.contiguous().requires_grad_() for x in latents((3, 4)))
    with torch.no_grad():
        mu[1, 2] = NAN
    loss = ops.free_bits_kl(mu, logvar, 0.5, groups=2, reduction="sum", backend="triton")
    loss.backward()
    assert loss.isnan()
    assert mu.grad[:, :2].isfinite().all()
    assert mu.grad[1, 2].isnan()


def logits_and_target(classes: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = 4 * torch.randn(shape[0], classes, *shape[1:], generator=generator)
    return logits, torch.randint(0, classes, shape, generator=generator)


@pytest.fixture(params=[None, 32], ids=["one tile", "many tiles"])
def pixels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have programs take a whole row at once, or loop over tiles of it."""
    if request.param is not None:
        monkeypatch.setattr(categorical, "_ELEMENTS", {2: 32, 4: 32, 8: 32})
        whole = categorical.plane_launch_config

        def two_chunks(*arguments: Any, **options: Any) -> Any:
            config, sizes = whole(*arguments, **options)
            return config._replace(chunks=min(config.chunks, 2)), sizes

        monkeypatch.setattr(categorical, "plane_launch_config", two_chunks)


@pytest.mark.parametrize(("classes", "shape"), [(3, (2, 5)), (17, (2, 9)), (1, (3,)), (18, (3,))], ids=str)
@pytest.mark.parametrize(("reduction", "weighted"), [("sum", True), ("none", False), ("batchmean", False)])
def test_categories(pixels: None, classes: int, shape: tuple[int, ...], reduction: str, weighted: bool) -> None:
    logits, target = logits_and_target(classes, shape)
    weight = torch.tensor(0.3) if weighted else 0.3

    def function(logits: Tensor, backend: str) -> Tensor:
        return ops.categorical_nll(logits, target, reduction=reduction, weight=weight, backend=backend)

    both(function, logits)


def test_the_gradient_of_one_pixel_is_its_shares_less_one() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).requires_grad_()
    loss = ops.categorical_nll(logits, torch.tensor([1]), reduction="none", weight=2.0, backend="triton")
    shares = torch.softmax(logits.detach().double(), 1)
    assert loss.item() == pytest.approx(-2 * shares[0, 1].log().item())
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    expected = 2 * (shares - torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_confident_decoders_keep_their_digits() -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [17.0, 0.0], [0.0, -INF]]).requires_grad_()
    loss = ops.categorical_nll(logits, torch.zeros(4, dtype=torch.uint8), reduction="none", backend="triton")
    small = torch.tensor(-17.0, dtype=torch.float64).exp().log1p().item()
    assert loss.tolist() == [0.0, 2e4, pytest.approx(small, rel=1e-5, abs=0), 0.0]
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient[:3, 0].tolist() == [0.0, -1.0, pytest.approx(-small, rel=1e-5, abs=0)]


def test_large_losses_of_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """In nats per picture they are beyond the largest exponent, 88 in fp32."""
    monkeypatch.setattr(importance_weighted, "_TILE", 4)  # so that a program loops over its row
    nll = 1000 + torch.arange(22.0).view(2, 11)
    both(lambda *inputs, backend: ops.importance_weighted_nll(*inputs, backend=backend), nll, nll % 5 - 100)


def test_the_terms_of_a_step_that_is_not_finite_are_means_over_the_rows_of_all_ranks() -> None:
    record = torch.zeros(5, dtype=torch.float64)
    total = torch.zeros(4, dtype=torch.float64)
    sums = torch.tensor([21.0, 14.0, 7.0], dtype=torch.float64)
    state = torch.tensor([9, 4])
    record_step_(
        torch.zeros(1), record, total, state, sums, torch.tensor([INF]), rows=7, images=5, lasting=False,
        backend="triton",
    )  # fmt: skip
    assert record.tolist() == [1, 4, 3, 2, 1]
    assert total.tolist() == [0, 0, 0, 5]


def test_the_constants_of_laplace() -> None:
    target = torch.linspace(-1, 1, 12).view(3, 4)
    both(
        lambda mean, backend: ops.laplace_nll(mean, target.to(mean.dtype), scale=0.3, full=True, backend=backend),
        target * 2,
    )
