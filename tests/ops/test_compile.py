"""``torch.compile(fullgraph=True)`` gives what eager gives: forward, backward, for any batch size, with fresh noise."""

from typing import Any

import pytest
import torch

import fastvae
from fastvae import ops

from . import cases, support
from .cases import BERNOULLI_NLL, CASES, REPARAMETERIZE_KL
from .support import Case, Inputs, assert_close, value_and_grad


@pytest.fixture(autouse=True)
def _fresh_dynamo(place: Any) -> Any:
    if place.interpreted:
        pytest.skip("the interpreter runs kernels in Python: nothing to compile")
    torch.compiler.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch.compiler.reset()


def compare(case: Case, place: Any, compiler: str, shapes: list[tuple[int, ...]], *reductions: str | None) -> None:
    dynamic = len(shapes) > 1
    for reduction in reductions:
        options = {"backend": place.backend, **case.options(reduction, weight=0.5)}

        def function(*arguments: torch.Tensor, options: Any = options) -> Any:
            # Neighbours on both sides, so that the operator sits inside a graph of its own.
            *first, last = arguments
            return tuple(output * 2 for output in case.fused(*(x * 1.5 for x in first), last, **options))

        torch.compiler.reset()
        compiled = torch.compile(function, fullgraph=True, backend=compiler, dynamic=dynamic)
        for shape in shapes:
            inputs = case.inputs(shape, torch.float32, place.device)
            expected = value_and_grad(function, inputs, -2.5)
            actual = value_and_grad(compiled, inputs, -2.5)
            for a, e in zip(actual, expected, strict=True):
                assert_close(a, e)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_forward_and_backward_of_a_full_graph(place: Any, case: Case) -> None:
    # Every reduction has its graph in the next one.
    compare(case, place, "aot_eager", [(5, 12)], case.reductions[0])


@pytest.mark.slow  # seconds for each
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_graph_serves_every_batch_size(place: Any, case: Case) -> None:
    reductions = case.reductions[:1] if place.backend == "reference" else case.reductions  # which is plain torch
    compare(case, place, "aot_eager", [(5, 12), (7, 12), (64, 12)], *reductions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "reduction"), [(BERNOULLI_NLL, "none"), (REPARAMETERIZE_KL, "sum")], ids=lambda x: getattr(x, "name", x)
)
def test_inductor(place: Any, case: Case, reduction: str) -> None:
    compare(case, place, "inductor", [(5, 12), (7, 12)], reduction)  # the third is in the next test


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_second_backward_of_a_compiled_loss_gives_the_same(place: Any, compiler: str) -> None:
    # Inductor may reuse what it saved; the gradient that forward wrote is scaled by backward, and must survive that.
    with torch._functorch.config.patch(donated_buffer=False):
        inputs = BERNOULLI_NLL.inputs((6, 20), torch.float32, place.device)
        compiled = torch.compile(
            lambda logits, target: ops.bernoulli_nll(logits, target, backend=place.backend),
            fullgraph=True,
            backend=compiler,
        )
        (logits,) = support.leaves(inputs.tensors)
        (target,) = inputs.constants
        loss = compiled(logits, target)
        (first,) = torch.autograd.grad(loss, logits, torch.full_like(loss, 3.0), retain_graph=True)
        kept = first.clone()
        (second,) = torch.autograd.grad(loss, logits, torch.full_like(loss, 1.0))
        expected = value_and_grad(BERNOULLI_NLL.eager, inputs)[1]
        assert_close((first, second), (3 * expected[0], expected[0]))
        assert torch.equal(first, kept)


@pytest.mark.parametrize("shape", [(6, 20), (4, 3, 8, 8)], ids=str)
def test_a_packed_head_in_one_graph(place: Any, shape: tuple[int, ...]) -> None:
    mu, logvar = cases.GAUSSIAN_KL.inputs(shape, torch.float32, place.device).tensors
    head = torch.cat((mu, logvar), 1)

    def function(head: torch.Tensor) -> Any:
        return cases.GAUSSIAN_KL.fused(*(head * 1).chunk(2, 1), backend=place.backend)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for a, e in zip(
        value_and_grad(compiled, Inputs((head,), ())), value_and_grad(function, Inputs((head,), ())), strict=True
    ):
        assert_close(a, e)


def test_a_key_that_advances_needs_no_new_graph(place: Any) -> None:
    noise = fastvae.Noise(1, 1, device=place.device)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(logvar: torch.Tensor) -> torch.Tensor:
        return ops.reparameterize(torch.zeros_like(logvar), logvar, noise, backend=place.backend)

    drawn = []
    for at in range(3):
        logvar = torch.zeros(4, 6, device=place.device, requires_grad=True)
        z = step(logvar)
        (gradient,) = torch.autograd.grad(z.sum(), logvar)
        assert_close((z.detach(), gradient), (noise.draw((4, 6)), 0.5 * z.detach()))
        drawn.append(z.detach())
        assert noise.state.tolist() == [1, at + 1]
        noise.advance()
    assert not torch.equal(drawn[0], drawn[1])


def test_none_draws_anew_in_every_call_and_backward_agrees(place: Any) -> None:
    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(logvar: torch.Tensor) -> torch.Tensor:
        return ops.reparameterize(torch.zeros_like(logvar), logvar, backend=place.backend)

    logvar = torch.zeros(4, 6, device=place.device, requires_grad=True)
    first, second = step(logvar), step(logvar)
    assert not torch.equal(first, second)
    (gradient,) = torch.autograd.grad(first.sum(), logvar)
    assert_close((gradient,), (0.5 * first.detach(),))


def test_a_weight_on_the_device_is_read_at_every_call(place: Any) -> None:
    weight = torch.ones((), device=place.device)
    mu, logvar = cases.GAUSSIAN_KL.inputs((4, 6), torch.float32, place.device).tensors

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return ops.gaussian_kl(mu, logvar, weight=weight, backend=place.backend)

    plain = step(mu, logvar).clone()
    weight.fill_(0.25)
    assert_close((step(mu, logvar),), (plain * 0.25,))


@pytest.mark.parametrize("changing", ["weight", "variance"])
def test_a_number_that_changes_is_followed(place: Any, changing: str) -> None:
    mean = torch.zeros(2, 3, device=place.device)
    target = torch.ones(2, 3, device=place.device)

    def step(value: float) -> torch.Tensor:
        return ops.gaussian_nll(mean, target, **{changing: value}, reduction="sum", backend=place.backend)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    # From the second on the number is a symbol. A fused operator's schema has a plain float, so each costs a graph:
    # for a schedule there is the weight on the device.
    with torch._dynamo.config.patch(error_on_recompile=False):
        losses = [compiled(value).item() for value in (0.5, 0.25, 2.0)]
    assert losses == ([1.5, 0.75, 6.0] if changing == "weight" else [6.0, 12.0, 1.5])


def penalize(function: Any, x: torch.Tensor) -> None:
    (gradient,) = torch.autograd.grad(function(x), x, create_graph=True)
    (gradient.square().sum() + x.sum()).backward()


@pytest.mark.skipif(torch.__version__ < "2.13", reason="torch 2.11 asks only tensors that require a gradient")
def test_a_second_order_gradient_of_a_compiled_operator_is_an_error(place: Any) -> None:
    compiled = torch.compile(
        lambda mu: ops.gaussian_kl(mu, mu * 0.5, backend=place.backend), fullgraph=True, backend="aot_eager"
    )
    mu = torch.randn(3, 4, device=place.device, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"double backward|differentiated twice"):
        penalize(compiled, mu)


def test_autocast_in_one_graph(place: Any) -> None:
    layer = torch.nn.Linear(8, 12, device=place.device)
    target = torch.randint(0, 256, (5, 12), dtype=torch.uint8, device=place.device)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(place.device, torch.bfloat16):
            return ops.bernoulli_nll(layer(x), target, backend=place.backend)

    loss = step(torch.randn(5, 8, device=place.device))
    loss.backward()
    assert loss.dtype == torch.float32
    assert layer.weight.grad.isfinite().all()
