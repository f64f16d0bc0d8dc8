"""The end of a loss: the last program of a segment adds its partials, and leaves the semaphore at zero."""

import fastvae.kernels._launch as launch
import pytest
import torch
import triton
import triton.language as tl

from fastvae import ops


@triton.jit
def _keep(values, loss, partials, semaphores, weight, chunks, first, step: tl.constexpr):
    """Programs whose partials are given, and which arrive in an order that is not theirs."""
    row = tl.program_id(0)
    chunk = (tl.program_id(1) * step + first) % chunks
    launch.last_block_reduction(
        tl.load(values + row * chunks + chunk), loss, partials, semaphores, weight, 0.5, row, chunk, chunks
    )


@pytest.mark.parametrize("chunks", [2, 16, 17, 40])  # step has no factor in common with any
def test_every_partial_is_added_once_in_any_order_of_arrival(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    monkeypatch.setattr(launch, "_BLOCK", tl.constexpr(16))
    rows = 2
    # fp64 adds so few fp32 values of one magnitude without rounding: the sum is exact.
    values = torch.rand(rows, chunks, generator=torch.Generator().manual_seed(3)) + 1
    expected = (values.double().sum(1) * 1.5).float()
    semaphores = torch.zeros(rows, dtype=torch.int32)
    for first in (0, 1):
        loss = torch.empty(rows)
        partials = torch.full((rows, chunks), torch.nan)
        _keep[rows, chunks](values, loss, partials, semaphores, torch.tensor(3.0), chunks, first, step=7)
        assert torch.equal(loss, expected)
        assert torch.equal(partials, values)
        assert not semaphores.any()


@pytest.mark.parametrize(("reduction", "segments"), [("sum", 1), ("none", 3)])
def test_a_loss_of_many_programs(monkeypatch: pytest.MonkeyPatch, reduction: str, segments: int) -> None:
    monkeypatch.setattr(launch, "_TILES", ((2**63, 2, 1),))
    monkeypatch.setattr(launch, "_BLOCK", tl.constexpr(4))
    generator = torch.Generator().manual_seed(4)
    logits, logvar = (torch.randn(3, 51, generator=generator) for _ in range(2))
    target = torch.randint(0, 256, logits.shape, dtype=torch.uint8, generator=generator)
    config = launch.launch_config(logits, reduction == "none")
    assert config.rows == segments
    assert config.chunks > 4

    def losses(backend: str, dtype: torch.dtype) -> list[torch.Tensor]:
        options = {"reduction": reduction, "weight": 0.3, "backend": backend}
        return [
            ops.bernoulli_nll(logits.to(dtype), target, **options),
            ops.gaussian_kl(logits.to(dtype), logvar.to(dtype), **options),
        ]

    first, second = (losses("triton", torch.float32) for _ in range(2))
    assert not any(semaphores.any() for semaphores in launch._zeros.values())
    for once, again, exact in zip(first, second, losses("reference", torch.float64), strict=True):
        assert torch.equal(once, again)
        torch.testing.assert_close(once.double(), exact, rtol=1e-6, atol=0)
