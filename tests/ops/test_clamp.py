"""``clamp`` of the latent operators: logvar within an interval, inside the kernel."""

import functools
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from fastvae import ops, reference

from . import support
from .cases import GAUSSIAN_KL, REPARAMETERIZE, REPARAMETERIZE_KL
from .support import Case, assert_accurate, assert_close, leaves

CLAMP = (-0.5, 0.75)
cases = pytest.mark.parametrize("case", [GAUSSIAN_KL, REPARAMETERIZE, REPARAMETERIZE_KL], ids=lambda case: case.name)


def clamping(case: Case, clamp: tuple[float, float] | None) -> Case:
    return replace(
        case,
        fused=functools.partial(case.fused, clamp=clamp),
        eager=functools.partial(case.eager, clamp=clamp),
    )


@cases
@pytest.mark.parametrize("clamp", [CLAMP, (-30.0, 20.0), (0.0, float("inf")), (0.25, 0.25)], ids=str)
@pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
def test_accuracy(place: Any, case: Case, dtype: torch.dtype, clamp: tuple[float, float]) -> None:
    inputs = case.inputs(place.affordable((7, 133)), dtype, place.device)
    for reduction in case.reductions:
        assert_accurate(clamping(case, clamp), inputs, place.backend, scalar=-2.5, **case.options(reduction, 0.5))


@cases
def test_halves_of_a_packed_head(place: Any, case: Case) -> None:
    inputs = case.inputs((6, 2, 10), torch.float32, place.device)
    halves = inputs._replace(tensors=tuple(inputs.tensors[0].unbind(1)), constants=inputs.map(lambda x: x[:, 0])[1])
    assert_accurate(clamping(case, CLAMP), halves, place.backend, **case.options("sum"))


@cases
def test_no_clamp_and_a_clamp_of_all_numbers_change_nothing(place: Any, case: Case) -> None:
    inputs = case.inputs((6, 20), torch.float32, place.device)
    plain, *others = (
        support.value_and_grad(clamping(case, clamp).fused, inputs, backend=place.backend, **case.options())
        for clamp in (None, (-float("inf"), float("inf")), (-100.0, 100.0))
    )
    for other in others:
        assert_close((*other[0], *other[1]), (*plain[0], *plain[1]))


@support.not_finite
@pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
def test_bounds_have_a_gradient_what_is_outside_has_none_and_nan_stays(place: Any, dtype: torch.dtype) -> None:
    inf, nan = float("inf"), float("nan")
    logvar = torch.tensor([[-0.5], [0.75], [-0.5078125], [0.7578125], [0.0], [inf], [-inf], [nan]], dtype=dtype)
    results = []
    for backend in (place.backend, None):
        mu, leaf = leaves((torch.ones_like(logvar).to(place.device), logvar.to(place.device)))
        where, module = ({}, reference) if backend is None else ({"backend": backend}, ops)
        z = module.reparameterize(mu, leaf, torch.full_like(mu, 0.5), clamp=CLAMP, **where)
        kl = module.gaussian_kl(mu, leaf, clamp=CLAMP, reduction="none", **where)
        both = module.reparameterize_kl(mu, leaf, torch.full_like(mu, 0.5), clamp=CLAMP, reduction="none", **where)
        gradients = [torch.autograd.grad(y.sum(), leaf, retain_graph=True)[0] for y in (z, kl, both[0], both[1])]
        for gradient in gradients:
            assert (gradient != 0).flatten()[[0, 1, 2, 3, 5, 6]].tolist() == [True, True, *[False] * 4]
            assert gradient[7].isnan()
        results.append([z, kl, *both, *gradients])
    for actual, expected in zip(*results, strict=True):
        bound = support.TOLERANCE[actual.dtype]
        torch.testing.assert_close(actual, expected, rtol=bound, atol=bound, equal_nan=True)


def test_a_logvar_that_would_overflow_gives_a_finite_loss(place: Any) -> None:
    logvar = torch.tensor([[1e4], [-1e4]], device=place.device).requires_grad_()
    kl = ops.gaussian_kl(torch.zeros_like(logvar), logvar, clamp=(-30.0, 20.0), backend=place.backend)
    kl.backward()
    exact = reference.gaussian_kl(torch.zeros(2, 1).double(), torch.tensor([[20.0], [-30.0]]).double())
    assert kl.item() == pytest.approx(exact.item(), rel=1e-6)
    assert logvar.grad.flatten().tolist() == [0.0, 0.0]


@cases
@pytest.mark.parametrize("clamp", [(1.0, -1.0), (float("nan"), 1.0), (0.0, float("nan"))], ids=str)
def test_what_is_no_interval_is_refused(backend: str, case: Case, clamp: tuple[float, float]) -> None:
    x = torch.zeros(2, 3)
    message = f"clamp must be (low, high) with low <= high, not ({clamp[0]}, {clamp[1]})"
    with pytest.raises(ValueError, match=re.escape(message)):
        clamping(case, clamp).fused(x, x, backend=backend)


@cases
def test_one_graph(place: Any, case: Case) -> None:
    if place.interpreted:
        pytest.skip("the interpreter runs kernels in Python: nothing to compile")
    inputs = case.inputs((5, 12), torch.float32, place.device)
    fused = functools.partial(clamping(case, CLAMP).fused, backend=place.backend)
    expected = support.value_and_grad(fused, inputs)
    actual = support.value_and_grad(torch.compile(fused, fullgraph=True, backend="aot_eager"), inputs)
    for a, e in zip(actual, expected, strict=True):
        support.assert_close(a, e)
