"""torch.func over the operators: the eager reference under "auto", a clear error where a transform would go wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from fastvae import Noise, ops
from fastvae.ops import _library

from .cases import CASES, GAUSSIAN_KL
from .support import Case, Inputs, assert_close, cotangents, leaves, value_and_grad

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def examples(case: Case, device: str) -> list[Inputs]:
    return [case.make((2, 6), torch.float32, torch.Generator().manual_seed(seed)).to(device) for seed in range(3)]


def stacked(results: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(tensors) for tensors in zip(*results, strict=True))


def total(case: Case, inputs: Inputs, **options: Any) -> Callable[..., Tensor]:
    """A scalar of all outputs, whose gradient is that of :func:`value_and_grad`."""
    incoming = cotangents(case.fused(*inputs.tensors, *inputs.constants, **options))

    def function(*arguments: Tensor) -> Tensor:
        outputs = case.fused(*arguments, **options)
        return sum((o * i).sum() for o, i in zip(outputs, incoming, strict=True))

    return function


@cases
def test_vmap(device: str, case: Case) -> None:
    for reduction in case.reductions:
        batches = examples(case, device)
        options = case.options(reduction, weight=0.5)
        arguments = stacked([(*inputs.tensors, *inputs.constants) for inputs in batches])
        actual = vmap(lambda *rows, options=options: case.fused(*rows, **options))(*arguments)
        loop = [case.fused(*inputs.tensors, *inputs.constants, **options) for inputs in batches]
        assert_close(actual, stacked(loop))


@cases
def test_grad(device: str, case: Case) -> None:
    for reduction in case.reductions:
        inputs = examples(case, device)[0]
        options = case.options(reduction, weight=0.5)
        which = tuple(range(len(inputs.tensors)))
        actual = grad(total(case, inputs, **options), which)(*inputs.tensors, *inputs.constants)
        assert_close(actual, value_and_grad(case.fused, inputs, **options)[1])


@cases
def test_vmap_of_grad_is_the_gradients_of_each_sample(device: str, case: Case) -> None:
    inputs = case.inputs((5, 6), torch.float32, device)
    options = case.options("sum", weight=0.5)
    rows = [inputs.map(lambda tensor, row=row: tensor[row, None]) for row in range(5)]
    of_one = grad(total(case, rows[0], **options), tuple(range(len(inputs.tensors))))
    arguments = stacked([(*row.tensors, *row.constants) for row in rows])
    assert_close(vmap(of_one)(*arguments), stacked([value_and_grad(case.fused, row, **options)[1] for row in rows]))


@cases
def test_jacrev(device: str, case: Case) -> None:
    inputs = examples(case, device)[0]
    options = case.options(case.reductions[-1])

    def flat(*tensors: Tensor) -> Tensor:
        return torch.cat([output.flatten() for output in case.fused(*tensors, *inputs.constants, **options)])

    tensors = leaves(inputs.tensors)
    loop = [torch.autograd.grad(value, tensors, retain_graph=True, allow_unused=True) for value in flat(*tensors)]
    loop = [tuple(torch.zeros_like(t) if g is None else g for g, t in zip(row, tensors, strict=True)) for row in loop]
    assert_close(jacrev(flat, tuple(range(len(tensors))))(*inputs.tensors), stacked(loop))


@pytest.mark.parametrize("backend", ["native", "triton"])
def test_a_fused_backend_is_refused_under_a_transform(backend: str) -> None:
    x = torch.zeros(3, 2, 4)

    def loss(x: Tensor) -> Tensor:
        return ops.gaussian_kl(x, x, backend=backend)

    message = f"backend='{backend}' has no rules for torch.func's transforms: use 'auto' or 'reference'"
    for call in (lambda: vmap(loss)(x), lambda: grad(loss)(x[0]), lambda: jacrev(loss)(x[0])):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="backend must be 'auto', 'triton', 'native' or 'reference', not 'cuda'"):
        vmap(lambda x: ops.gaussian_kl(x, x, backend="cuda"))(x)


@pytest.mark.parametrize("noise", [None, Noise(1)], ids=["None", "key"])
def test_noise_that_vmap_would_repeat_is_refused(noise: Noise | None) -> None:
    x = torch.zeros(3, 2, 4)
    message = "a Noise key or None draws the same for every example of torch.func.vmap: pass a tensor eps"
    for draw in (
        lambda x: ops.reparameterize(x, x, noise),
        lambda x: ops.reparameterize_kl(x, x, noise)[0],
        lambda x: ops.reparameterize_log_ratio(x, x, noise, samples=2)[0],
    ):
        for transformed in (vmap(draw), vmap(grad(lambda x, draw=draw: draw(x).sum()))):
            with pytest.raises(ValueError, match=message):
                transformed(x)


def test_pixels_that_vmap_would_binarize_alike_are_refused() -> None:
    logits = torch.zeros(3, 2, 4)
    target = torch.full((3, 2, 4), 99, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"for every example of torch.func.vmap: binarize the pixels before it"):
        vmap(lambda logits, target: ops.bernoulli_nll(logits, target, binarize=Noise(1)))(logits, target)


def test_a_key_is_one_draw_under_grad_as_without(device: str) -> None:
    inputs = GAUSSIAN_KL.inputs((2, 6), torch.float32, device)
    key = Noise(1, device=device)

    def sample(*latents: Tensor) -> tuple[Tensor, ...]:
        return (ops.reparameterize(*latents, key).square().sum(),)

    actual = grad(lambda *latents: sample(*latents)[0], (0, 1))(*inputs.tensors)
    assert_close(actual, value_and_grad(sample, inputs)[1])


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_compiled_transform(device: str, backend: str) -> None:
    inputs = GAUSSIAN_KL.inputs((3, 6), torch.float32, device)

    def loss(mu: Tensor, logvar: Tensor) -> Tensor:
        return ops.gaussian_kl(mu[None], logvar[None], backend=backend)

    of_each = vmap(grad(loss, (0, 1)))
    compiled = torch.compile(of_each, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*inputs.tensors), of_each(*inputs.tensors))


def test_after_a_transform_the_fused_path_is_back(device: str) -> None:
    x = torch.zeros(2, 4, device=device)
    grad(lambda x: ops.gaussian_kl(x, x))(x)
    assert _library.resolve("auto", x) is (torch.ops.fastvae if device == "cuda" or _library.has_native() else None)


def test_a_key_under_a_compiled_vmap_is_refused(device: str) -> None:
    noise = ops.Noise(1, device=device)

    @torch.compile(backend="eager")
    @torch.func.vmap
    def sample(mu: Tensor) -> Tensor:
        return ops.reparameterize(mu, torch.zeros_like(mu), noise)

    with pytest.raises((ValueError, RuntimeError)):  # in torch.compile's words
        sample(torch.zeros(3, 4, 5, device=device))
