"""Every operator as programs use it: exported, captured, checkpointed, under autocast, on a device that is not current.

What each promises of a second backward, of accumulated gradients and of empty batches stands in contract.py.
"""

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import fastvae
from fastvae import ops

from . import cases, support
from .cases import CASES
from .support import Case, Inputs, assert_close, assert_same_bits, leaves, value_and_grad

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


class Use(torch.nn.Module):
    """An operator between neighbours, as a module."""

    def __init__(self, case: Case, **options: Any) -> None:
        super().__init__()
        self.case = case
        self.options = options

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *first, last = arguments
        return tuple(output * 2 for output in self.case.fused(*(x * 1.5 for x in first), last, **self.options))


def arguments_of(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    return (*inputs.tensors, *inputs.constants)


# torch.export.


@pytest.fixture
def _compilable(place: Any) -> Any:
    if place.interpreted:
        pytest.skip("the interpreter runs kernels in Python: nothing to trace")
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_compilable")
@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize("training", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["inference", "training"])
@every_case
def test_export(place: Any, case: Case, training: bool, strict: bool) -> None:
    # In a graph a reduction is a number that is handed on: each of them in one of the four ways is enough.
    for reduction in case.reductions[:1] if training or strict else case.reductions:
        use = Use(case, backend=place.backend, **case.options(reduction, weight=0.5))
        inputs, other = (case.inputs((rows, 12), torch.float32, place.device) for rows in (5, 7))
        arguments = (*(leaves(inputs.tensors) if training else inputs.tensors), *inputs.constants)
        batch = torch.export.Dim("batch", min=2, max=64)
        with torch.set_grad_enabled(training):
            shapes = (({0: batch},) * len(arguments),)
            exported = torch.export.export(use, arguments, dynamic_shapes=shapes, strict=strict)
            for given in (inputs, other):
                assert_close(exported.module()(*arguments_of(given)), use(*arguments_of(given)))


@pytest.mark.usefixtures("_compilable")
@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_a_backward_through_an_exported_loss_is_never_a_silent_zero(place: Any, strict: bool) -> None:
    # An exported program holds the forward alone: torch refuses to differentiate it, or warns of doing nothing.
    if place.backend == "reference":
        pytest.skip("plain torch, which can be differentiated")
    inputs = cases.BERNOULLI_NLL.inputs((5, 12), torch.float32, place.device)
    arguments = (*leaves(inputs.tensors), *inputs.constants)
    use = Use(cases.BERNOULLI_NLL, backend=place.backend, reduction="sum")
    (loss,) = torch.export.export(use, arguments, strict=strict).module()(*arguments)
    with pytest.raises((RuntimeError, UserWarning), match=r"autograd kernel was not registered|does not require grad"):
        loss.backward()


@pytest.mark.slow
@pytest.mark.usefixtures("_compilable")
@every_case
def test_the_second_batch_size_compiles_one_graph_for_all_others(place: Any, case: Case) -> None:
    # Without dynamic=True: the first graph is for its size alone, as for any torch operator.
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(Use(case, backend=place.backend, **case.options(case.reductions[0])), backend=counter)
    for rows, frames in ((5, 1), (7, 2), (64, 2), (3, 2)):
        inputs = case.inputs((rows, 12), torch.float32, place.device)
        value_and_grad(compiled, inputs)
        assert counter.frame_count == frames


@every_case
def test_nothing_is_copied_from_the_host(place: Any, case: Case, no_host_copies: Any) -> None:
    for reduction in case.reductions:
        inputs = case.inputs((5, 12), torch.float32, place.device)
        given = Inputs(leaves(inputs.tensors), inputs.constants)
        options = case.options(reduction, weight=0.5)
        incoming = support.cotangents(case.fused(*arguments_of(given), backend=place.backend, **options))
        with no_host_copies:
            outputs = case.fused(*arguments_of(given), backend=place.backend, **options)
            torch.autograd.grad(outputs, given.tensors, incoming)


# CUDA graphs and devices: what only a GPU can show.


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@every_case
def test_a_captured_forward_and_backward_replays(case: Case) -> None:
    for reduction in case.reductions:
        first = case.inputs((5, 12), torch.float32, "cuda")
        second = Inputs(tuple(tensor.flip(0) for tensor in first.tensors), first.constants)
        held = first.map(torch.clone)
        tensors = tuple(tensor.requires_grad_() for tensor in held.tensors)
        options = case.options(reduction, weight=0.5)

        incoming = support.cotangents(case.fused(*arguments_of(held), **options))  # from the host: not in a capture

        def step(held: Inputs = held, incoming: Any = incoming, options: Any = options) -> tuple[torch.Tensor, ...]:
            outputs = case.fused(*arguments_of(held), **options)
            return (*outputs, *torch.autograd.grad(outputs, held.tensors, incoming))

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiles the kernels, which a capture must not
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = step()
        for given in (first, second):
            for to, tensor in zip(tensors, given.tensors, strict=True):
                to.detach().copy_(tensor)
            graph.replay()
            expected = value_and_grad(case.fused, given, **options)
            assert_same_bits(tuple(r.detach() for r in results), (*expected[0], *expected[1]))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@every_case
def test_tensors_on_a_device_that_is_not_current(case: Case) -> None:
    for reduction in case.reductions:
        options = case.options(reduction)
        near, far = (value_and_grad(case.fused, case.inputs((5, 12), device=f"cuda:{at}"), **options) for at in (0, 1))
        assert all(tensor.device.index == 1 for tensor in (*far[0], *far[1]))
        assert_same_bits(*(tuple(t.cpu() for t in (*result[0], *result[1])) for result in (near, far)))
        assert torch.cuda.current_device() == 0


# Checkpoints.


@every_case
def test_a_reentrant_checkpoint_gives_the_same_gradients(place: Any, case: Case) -> None:
    inputs = case.inputs((6, 20), torch.float32, place.device)
    options = {"backend": place.backend, **case.options()}

    tensors = leaves(inputs.tensors)
    outputs = checkpoint(lambda *given: case.fused(*given, **options), *tensors, *inputs.constants, use_reentrant=True)
    torch.autograd.backward(outputs, support.cotangents(outputs))  # torch.autograd.grad is refused here
    expected = value_and_grad(case.fused, inputs, **options)
    actual = (tuple(output.detach() for output in outputs), tuple(tensor.grad for tensor in tensors))
    assert_same_bits((*actual[0], *actual[1]), (*expected[0], *expected[1]))


@pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])
@pytest.mark.parametrize("keyed", [False, True], ids=["none", "key"])
@pytest.mark.parametrize("with_kl", [False, True], ids=["reparameterize", "reparameterize_kl"])
def test_a_checkpoint_recomputes_with_the_same_noise(place: Any, with_kl: bool, keyed: bool, reentrant: bool) -> None:
    noise = fastvae.Noise(7, 3, device=place.device) if keyed else None
    logvar = torch.zeros(4, 6, device=place.device, requires_grad=True)

    def block(logvar: torch.Tensor) -> torch.Tensor:
        mu = torch.zeros_like(logvar)
        if with_kl:
            return ops.reparameterize_kl(mu, logvar, noise, backend=place.backend)[0].square()
        return ops.reparameterize(mu, logvar, noise, backend=place.backend).square()

    z_squared = checkpoint(block, logvar, use_reentrant=reentrant)
    torch.randn(3, device=place.device)  # the generator has moved on by the time of the recomputation
    z_squared.sum().backward()
    # d z**2 / d logvar = 2 z * z / 2 = z**2 holds for the noise of the forward and for no other.
    assert_close((logvar.grad,), (z_squared.detach(),))


# Mixed types under autocast.


@every_case
def test_losses_are_fp32_under_autocast_whatever_comes_in(place: Any, case: Case) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        inputs = case.inputs(place.affordable((6, 20)), dtype, place.device)
        for reduction in case.reductions[:1] if place.interpreted else case.reductions:
            options = {"backend": place.backend, **case.options(reduction)}
            plain = value_and_grad(case.fused, inputs, **options)
            with torch.autocast(place.device, torch.bfloat16):
                cast = value_and_grad(case.fused, inputs, **options)
            assert [o.dtype for o in cast[0]] == [o.dtype for o in plain[0]]
            assert reduction is None or cast[0][-1].dtype == torch.float32
            assert [gradient.dtype for gradient in cast[1]] == [dtype] * len(inputs.tensors)
            if not case.name.startswith("linear"):  # whose products are autocast's to choose; test_linear_*.py
                assert_same_bits((*cast[0], *cast[1]), (*plain[0], *plain[1]))


def test_an_elbo_of_fp32_latents_and_bf16_logits(place: Any) -> None:
    decoder = torch.nn.Linear(4, 12, device=place.device)
    mu, logvar, target = (torch.rand(5, size, device=place.device) for size in (4, 4, 12))
    mu, logvar = leaves((mu, logvar))
    with torch.autocast(place.device, torch.bfloat16):
        z, kl = ops.reparameterize_kl(mu, logvar, fastvae.Noise(1, device=place.device), backend=place.backend)
        logits = decoder(z)
        loss = ops.bernoulli_nll(logits, target, backend=place.backend) + kl
    assert (z.dtype, logits.dtype, kl.dtype, loss.dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )
    loss.backward()
    eps = fastvae.Noise(1, device=place.device).draw((5, 4))
    exact = leaves((mu, logvar))
    z = exact[0] + torch.exp(exact[1] / 2) * eps
    kl = 0.5 * (exact[0].square() + exact[1].exp() - 1 - exact[1]).sum() / 5
    truth = torch.nn.functional.binary_cross_entropy_with_logits(decoder(z), target, reduction="sum") / 5 + kl
    gradients = torch.autograd.grad(truth, exact)
    assert support.error(loss, truth) <= support.TOLERANCE[torch.bfloat16]
    for actual, expected in zip((mu.grad, logvar.grad), gradients, strict=True):
        assert actual.dtype == torch.float32
        assert support.error(actual, expected) <= 2 * support.TOLERANCE[torch.bfloat16]  # z and its gradient are bf16
