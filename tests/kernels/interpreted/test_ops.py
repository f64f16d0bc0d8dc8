"""Kernels against the eager reference in fp64, to a bound near rounding: what tests/ops/contract.py cannot reach.

The contract proves types, shapes and reductions, on every backend, to the tolerance of the types. Here are packed rows,
noise from a key, and the cuts that only tensors too large for the interpreter have.
"""

from collections.abc import Callable
from typing import Any

import fastvae.kernels._launch as launch
import fastvae.kernels.categorical_nll as categorical
import fastvae.kernels.discretized_logistic_mixture_nll as mixture
import fastvae.kernels.free_bits_kl as free_bits
import pytest
import torch
from torch import Tensor

from fastvae import ops

# The interpreter truncates fp32 to bf16 where a GPU rounds to nearest: two roundings of a full ulp each.
BOUND = {torch.float32: 1e-6, torch.bfloat16: 1.7e-2, torch.float16: 1.5e-3, torch.float64: 1e-14}
LATENTS = [(1, 1), (3, 5), (2, 40), (2, 3, 4), (3,), (0, 4), (4, 0)]
PIXELS = [(1, 1), (3, 5), (2, 40), (0, 4)]
# NumPy warns where a GPU just computes an infinity.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
# To a kernel, "batchmean" is "sum" with another weight.
reductions = pytest.mark.parametrize("reduction", ["sum", "none"])
SIXTEEN_BITS_AND_FP64 = (torch.bfloat16, torch.float16, torch.float64)


def chosen(names: str, in_fp32: list[Any], in_others: list[Any]) -> pytest.MarkDecorator:
    """Parametrize with rows of (shape, ...) for fp32, and few for the other types, because the interpreter is slow.

    A type decides the width of a vector and the casts at its ends, so it needs a ragged shape and one of whole vectors.
    """
    rows = [(torch.float32, *row) for row in in_fp32]
    rows += [(dtype, *row) for dtype in SIXTEEN_BITS_AND_FP64 for row in in_others]
    return pytest.mark.parametrize(("dtype", *names.split()), rows, ids=lambda value: str(value).removeprefix("torch."))


def reduced(shapes: list[tuple[int, ...]]) -> pytest.MarkDecorator:
    return chosen(
        "shape reduction",
        [(shape, reduction) for shape in shapes for reduction in ("sum", "none")],
        [((3, 5), "none"), ((2, 40), "sum"), ((2, 520), "none")],  # the last: two programs a row, in 16 bits too
    )


def packed(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """mu and logvar as the halves of one head: dense rows, a stride of twice their length."""
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    head = torch.randn(shape[0], 2, *shape[1:], generator=generator, dtype=torch.float64).to(dtype)
    return head[:, 0], head[:, 1]


def both(run: Callable[[str, list[Tensor]], list[Tensor]], inputs: list[Tensor]) -> None:
    """Outputs and gradients of ``run(backend, inputs)`` on Triton against fp64 eager."""
    results = {}
    for backend in ("triton", "reference"):
        leaves = [(x if backend == "triton" else x.double()).detach().requires_grad_() for x in inputs]
        outputs = run(backend, leaves)
        factors = [torch.linspace(0.5, 1.5, max(y.numel(), 1), dtype=torch.float64)[: y.numel()] for y in outputs]
        total = sum((y.flatten() * f.to(y.dtype)).sum() for y, f in zip(outputs, factors, strict=True))
        results[backend] = [*outputs, *torch.autograd.grad(total, leaves, allow_unused=True)]
    for actual, expected in zip(results["triton"], results["reference"], strict=True):
        if expected is None:
            assert actual is None
            continue
        scale = max(1.0, float(expected.detach().abs().amax())) if expected.numel() else 1.0
        bound = BOUND[inputs[0].dtype] * scale
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=bound, equal_nan=True)


@reduced(LATENTS)
def test_latents(dtype: torch.dtype, shape: tuple[int, ...], reduction: str) -> None:
    noise = ops.Noise(5, 3, row_offset=3, stream=1)
    eps = noise.draw(shape, torch.float64)

    def run(backend: str, leaves: list[Tensor]) -> list[Tensor]:
        source = noise if backend == "triton" else eps
        options = {"reduction": reduction, "weight": torch.tensor(0.3), "backend": backend}
        z, kl = ops.reparameterize_kl(*leaves, source, **options)
        return [z, kl, ops.gaussian_kl(*leaves, **options), ops.reparameterize(*leaves, source, backend=backend)]

    both(run, list(packed(shape, dtype)))


@chosen(
    "shape groups",
    [
        *[(shape, None) for shape in [(1, 2), (3, 6), (3, 40), (2, 3, 4), (0, 4), (4, 0)]],
        *[(shape, groups) for shape in [(3, 6), (3, 40), (4, 0)] for groups in (1, 2)],
    ],
    [((3, 6), 2), ((3, 40), None)],
)
def test_free_bits(dtype: torch.dtype, shape: tuple[int, ...], groups: int | None) -> None:
    def run(backend: str, leaves: list[Tensor]) -> list[Tensor]:
        options = {"groups": groups, "weight": torch.tensor(0.3), "backend": backend}
        return [ops.free_bits_kl(*leaves, 0.5, reduction="sum", **options)]

    both(run, list(packed(shape, dtype)))


@chosen(
    "shape estimator",
    [*[(shape, "iwae") for shape in LATENTS], *[(shape, e) for shape in [(3, 5), (2, 3, 4)] for e in ("stl", "dreg")]],
    [((3, 5), "dreg"), ((2, 40), "stl")],
)
def test_samples_and_their_bound(dtype: torch.dtype, shape: tuple[int, ...], estimator: str) -> None:
    noise = ops.Noise(5, 3, row_offset=3, stream=1)
    eps = noise.draw((shape[0], 3, *shape[1:]), torch.float64)

    def run(backend: str, leaves: list[Tensor]) -> list[Tensor]:
        source = noise if backend == "triton" else eps
        z, log_ratio = ops.reparameterize_log_ratio(*leaves, source, samples=3, estimator=estimator, backend=backend)
        nll = 0.1 * z.flatten(2).sum(2) if z.ndim > 2 else z
        return [z, ops.importance_weighted_nll(nll.to(log_ratio.dtype), log_ratio, reduction="none", backend=backend)]

    # Near the prior: a weight is the exponential of a sum over the event, and of a long one fp32 loses the digits.
    both(run, [0.25 * half for half in packed(shape, dtype)])


@reduced(PIXELS)
def test_pixels(dtype: torch.dtype, shape: tuple[int, ...], reduction: str) -> None:
    target = "uint8" if reduction == "sum" else "float"
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    x = x if target == "uint8" else (x / 255).to(dtype)

    def run(backend: str, leaves: list[Tensor]) -> list[Tensor]:
        here = x.double() if backend == "reference" and target == "float" else x
        options = {"reduction": reduction, "weight": 0.3, "backend": backend}
        return [
            ops.bernoulli_nll(*leaves, here, **options),
            ops.gaussian_nll(*leaves, here, 0.7, full=True, **options),
            ops.laplace_nll(*leaves, here, 0.7, full=True, **options),
            ops.continuous_bernoulli_nll(*leaves, here, **options),
        ]

    both(run, [4 * packed(shape, dtype)[0].contiguous()])


@reduced(PIXELS)
def test_pairs_of_predictions(dtype: torch.dtype, shape: tuple[int, ...], reduction: str) -> None:
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

    def run(backend: str, leaves: list[Tensor]) -> list[Tensor]:
        options = {"reduction": reduction, "weight": 0.3, "backend": backend}
        return [
            ops.gaussian_logvar_nll(*leaves, x, full=True, **options),
            ops.discretized_logistic_nll(*leaves, x, **options),
        ]

    both(run, [tensor.contiguous() for tensor in packed(shape, dtype)])


@chosen(
    "shape row_offset reduction",
    [((3, 5), 0, "sum"), ((3, 5), 3, "none"), ((2, 40), 0, "none"), ((2, 40), 3, "sum")],
    [((3, 5), 3, "none"), ((2, 40), 0, "sum")],
)
def test_binarized_pixels(dtype: torch.dtype, shape: tuple[int, ...], row_offset: int, reduction: str) -> None:
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    key = ops.Noise(5, 3, row_offset, stream=2)

    def run(backend: str, leaves: list[Tensor]) -> list[Tensor]:
        return [ops.bernoulli_nll(*leaves, x, binarize=key, reduction=reduction, backend=backend)]

    both(run, [packed(shape, dtype)[0].contiguous()])


@pytest.mark.parametrize("row_offset", [0, 3, 2**36 + 5])
@pytest.mark.parametrize("shape", [(3, 5), (2, 40), (0, 4), (4, 0)], ids=str)
def test_binarized_before(shape: tuple[int, ...], row_offset: int) -> None:
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    key = ops.Noise(5, 3, row_offset, stream=2)
    assert torch.equal(key.binarize(x, backend="triton"), key.binarize(x, backend="reference"))


@chosen(
    "shape reduction channels",
    [
        *[(shape, "sum", 3) for shape in [(1, 1), (3, 5), (2, 40), (0, 4), (4, 0)]],
        *[(shape, "none", 1) for shape in [(3, 5), (2, 40), (0, 4), (4, 0)]],
        ((3, 5), "sum", 1),
        ((3, 5), "none", 3),
    ],
    [((3, 5), "none", 3), ((2, 40), "sum", 1)],
)
def test_planes(dtype: torch.dtype, shape: tuple[int, ...], reduction: str, channels: int) -> None:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (shape[0], channels, *shape[1:]), dtype=torch.uint8, generator=generator)
    head = torch.randn(shape[0], 3 * (10 if channels == 3 else 3), *shape[1:], generator=generator).double().to(dtype)
    index = torch.randint(0, head.shape[1], shape, generator=generator)

    def run(backend: str, leaves: list[Tensor]) -> list[Tensor]:
        options = {"reduction": reduction, "weight": torch.tensor(0.3), "backend": backend}
        colours = ops.discretized_logistic_mixture_nll(leaves[0], pixels, 3, **options)
        return [colours, ops.categorical_nll(leaves[0], index, **options)]

    both(run, [head])


@pytest.fixture(params=[((3, 24), 2**30), ((5, 7), 2**30), ((5, 7), 0)], ids=str)
def looping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, ...]:
    """A shape over which programs loop, tile by tile, with offsets in 32 bits or in 64."""
    shape, reach = request.param
    monkeypatch.setattr(launch, "_TILES", ((2**63, 2, 1),))
    monkeypatch.setattr(launch, "_MAX_CHUNKS", 3)
    monkeypatch.setattr(launch, "_INT32_REACH", reach)
    monkeypatch.setattr(free_bits, "_TILE", 4)
    monkeypatch.setattr(free_bits, "_MAX_COLUMNS", 4)
    monkeypatch.setattr(free_bits, "_PROGRAMS", 2)
    monkeypatch.setattr(free_bits, "_INT32_REACH", reach)
    monkeypatch.setattr(categorical, "_ELEMENTS", {4: 32})
    monkeypatch.setattr(mixture, "_ELEMENTS", {4: 32})
    return shape


@reductions
def test_programs_that_loop_over_tiles(looping: tuple[int, ...], reduction: str) -> None:
    test_latents(torch.float32, looping, reduction)
    test_pixels(torch.float32, looping, reduction)
    test_planes(torch.float32, looping, reduction, 3)


def test_programs_that_loop_over_tiles_whatever_is_summed(looping: tuple[int, ...]) -> None:
    test_binarized_before(looping, 3)
    test_free_bits(torch.float32, looping, None)


@pytest.mark.parametrize("used", ["z", "kl"])
def test_one_gradient_of_the_latent_term(used: str) -> None:
    eps = torch.linspace(-2, 2, 24, dtype=torch.float64).view(4, 6)

    def run(backend: str, leaves: list[Tensor]) -> list[Tensor]:
        z, kl = ops.reparameterize_kl(*leaves, eps.to(leaves[0].dtype), reduction="none", backend=backend)
        return [z if used == "z" else kl]

    both(run, [x.contiguous() for x in packed((4, 6), torch.float32)])


def test_rows_of_a_global_batch() -> None:
    mu, logvar = packed((6, 5), torch.float32)
    whole = ops.reparameterize(mu, logvar, ops.Noise(1, 2, row_offset=7), backend="triton")
    for first in range(1, 6):
        part = ops.reparameterize(mu[first:], logvar[first:], ops.Noise(1, 2, row_offset=7 + first), backend="triton")
        assert torch.equal(part, whole[first:])


def test_a_second_backward_gives_the_same_gradient() -> None:
    logits = torch.linspace(-3, 3, 24).view(2, 12).requires_grad_()
    loss = ops.bernoulli_nll(logits, torch.ones(2, 12), backend="triton")
    first = torch.autograd.grad(loss, logits, torch.tensor(2.0), retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, logits, torch.tensor(2.0))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits(dtype: torch.dtype) -> None:
    inf, nan = float("inf"), float("nan")
    values = torch.tensor([1e4, -1e4, 88, -88, 17, -17, 1e-4, -1e-4, 0.0, -0.0, inf, -inf, nan], dtype=dtype)
    for x in (0.0, 1.0, 0.25):
        results = []
        for backend in ("triton", "reference"):
            logits = values[:, None].clone().requires_grad_()
            target = torch.full_like(logits, x).detach()
            loss = ops.bernoulli_nll(logits, target, reduction="none", backend=backend)
            squared = ops.gaussian_nll(logits, target, reduction="none", backend=backend)
            gradients = [torch.autograd.grad(y.sum(), logits)[0] for y in (loss, squared)]
            results.append([loss, squared, *gradients])
        for actual, expected in zip(*results, strict=True):
            torch.testing.assert_close(actual, expected, rtol=2e-6, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_latents(dtype: torch.dtype) -> None:
    inf, nan = float("inf"), float("nan")
    logvar = torch.tensor(
        [-90, -60, -20, -1, -1e-3, -1e-6, 0, 1e-6, 1e-3, 1, 20, 60, 85, 90, 170, 1e4, -1e4, inf, -inf, nan], dtype=dtype
    )[:, None]
    for mean in (0.0, 1.5, inf, nan):
        results = []
        for backend in ("triton", "reference"):
            mu = torch.full_like(logvar, mean).requires_grad_()
            leaf = logvar.clone().requires_grad_()
            z, kl = ops.reparameterize_kl(mu, leaf, torch.full_like(logvar, -1.25), reduction="none", backend=backend)
            gradients = [torch.autograd.grad(y.sum(), leaf, retain_graph=True)[0] for y in (z, kl)]
            results.append([z, kl, *gradients])
        for name, actual, expected in zip(("z", "kl", "dz", "dkl"), *results, strict=True):
            # Near logvar 0, KL is a difference of two numbers of that size, and the slope that autograd finds for the
            # reference is one of two numbers near 1/2 (the kernel's keeps its digits). z is right to its last digits.
            slack = 1e-6 if mean else {"kl": 1e-9, "dkl": 1e-7}.get(name, 1e-30)
            torch.testing.assert_close(actual, expected, rtol=4e-6, atol=slack, equal_nan=True)
