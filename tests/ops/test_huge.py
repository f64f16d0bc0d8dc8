"""More elements than 32 bits can count: the last ones must be read, and their gradient written."""

import os

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


def logits_and_target(rows: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that cost nothing, but for the last element of each of the first and the last row."""
    logits = torch.full((rows, ELEMENTS // rows), -VALUE, dtype=torch.bfloat16, device=device)
    logits[0, -1] = logits[-1, -1] = VALUE
    return logits, torch.zeros(logits.shape, dtype=torch.uint8, device=device)


@pytest.fixture(scope="module")
def where(device: str) -> tuple[str, str]:
    return ("triton", "cuda") if device == "cuda" else ("native", "cpu")


@pytest.mark.parametrize("rows", [4096, 2], ids=["many rows", "rows of 2**30 elements"])
def test_the_last_element_is_read(where: tuple[str, str], rows: int) -> None:
    backend, device = where
    require(3 * ELEMENTS, device)
    logits, target = logits_and_target(rows, device)
    total = ops.bernoulli_nll(logits, target, reduction="sum", backend=backend)
    assert total.item() == pytest.approx(2 * VALUE, rel=1e-6)
    each = ops.bernoulli_nll(logits, target, reduction="none", backend=backend)
    assert each[[0, -1]].tolist() == pytest.approx([VALUE, VALUE], rel=1e-6)
    assert each[1:-1].abs().max().item() < 1e-6 if rows > 2 else True


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_the_last_gradient_is_written(where: tuple[str, str], reduction: str) -> None:
    backend, device = where
    require(5 * ELEMENTS, device)
    logits, target = logits_and_target(4096, device)
    loss = ops.bernoulli_nll(logits.requires_grad_(), target, reduction=reduction, backend=backend)
    (gradient,) = torch.autograd.grad(loss, logits, torch.full_like(loss, 3.0))
    assert gradient[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == pytest.approx([0.0, 3.0, 0.0, 3.0], abs=1e-6)
    gradient[[0, -1], -1] = 0.0
    assert 0 <= gradient.amin().item() <= gradient.amax().item() < 1e-6  # a sum of bf16 takes half a minute
