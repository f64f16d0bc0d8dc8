"""More elements than 32 bits can count: the last ones must be read, and their gradient written."""

import os
from collections.abc import Iterator

import pytest
import torch

from fastvae import ops

ELEMENTS = 2**31 + 4096
# One worker has them all: two at once have made a machine of 24 GiB kill one.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("huge")]
VALUE = 64.0  # log(1 + exp(-64)) is 0 in fp32: with target 0 a logit of -64 costs nothing, one of 64 costs 64


def require(bytes_needed: int, device: str) -> None:
    if device == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < 1.1 * bytes_needed:
        pytest.skip(f"needs {bytes_needed / 2**30:.0f} GiB of memory, of which {free / 2**30:.0f} GiB are free")


@pytest.fixture(scope="module")
def where(device: str) -> tuple[str, str]:
    return ("triton", "cuda") if device == "cuda" else ("native", "cpu")


@pytest.fixture(scope="module")
def memory(where: tuple[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that cost nothing, and their target: once for all tests, since to touch new memory takes longest."""
    _, device = where
    require(3 * ELEMENTS, device)
    logits = torch.full((ELEMENTS,), -VALUE, dtype=torch.bfloat16, device=device)
    return logits, torch.zeros(ELEMENTS, dtype=torch.uint8, device=device)


@pytest.fixture
def inputs(memory: tuple[torch.Tensor, torch.Tensor], rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """So many rows, of which the first and the last have a last element that costs its value."""
    logits, target = (tensor.view(rows, -1) for tensor in memory)
    logits[[0, -1], -1] = VALUE
    yield logits, target
    logits[[0, -1], -1] = -VALUE


@pytest.mark.parametrize("rows", [4096, 2], ids=["many rows", "rows of 2**30 elements"])
def test_the_last_element_is_read(where: tuple[str, str], inputs: tuple[torch.Tensor, torch.Tensor], rows: int) -> None:
    backend, _ = where
    total = ops.bernoulli_nll(*inputs, reduction="sum", backend=backend)
    assert total.item() == pytest.approx(2 * VALUE, rel=1e-6)
    each = ops.bernoulli_nll(*inputs, reduction="none", backend=backend)
    assert each[[0, -1]].tolist() == pytest.approx([VALUE, VALUE], rel=1e-6)
    assert each[1:-1].abs().max().item() < 1e-6 if rows > 2 else True


@pytest.mark.parametrize("rows", [4096])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_the_last_gradient_is_written(
    where: tuple[str, str], inputs: tuple[torch.Tensor, torch.Tensor], reduction: str
) -> None:
    backend, device = where
    require(2 * ELEMENTS, device)
    logits = inputs[0].detach().requires_grad_()
    loss = ops.bernoulli_nll(logits, inputs[1], reduction=reduction, backend=backend)
    (gradient,) = torch.autograd.grad(loss, logits, torch.full_like(loss, 3.0))
    assert gradient[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == pytest.approx([0.0, 3.0, 0.0, 3.0], abs=1e-6)
    gradient[[0, -1], -1] = 0.0
    assert 0 <= gradient.amin().item() <= gradient.amax().item() < 1e-6  # a sum of bf16 takes half a minute
