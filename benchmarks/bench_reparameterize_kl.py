"""The latent term: an ideal forward and backward move 32 bytes per element in fp32, 16 in bf16."""

import pytest
import timing
import torch

from fastvae import ops


def eager(mu, logvar):
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp()) / len(mu)
    return z.sum() + kl


def fused(mu, logvar):
    z, kl = ops.reparameterize_kl(mu, logvar, timing.noise(mu.device))
    return z.sum() + kl


def moved(itemsize):
    """Bytes per element that ideal passes move."""
    return 8 * itemsize


CONTENDERS = {
    "fastvae": lambda: fused,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("rows", "event"), [*timing.LATENT_SHAPES, timing.LARGE_LATENT_SHAPE])
def test_reparameterize_kl(benchmark, device, rows, event, dtype, name):
    benchmark.group = f"reparameterize_kl {rows}x{'x'.join(map(str, event))} {timing.KINDS[dtype]}, forward + backward"
    mu, logvar = (torch.randn(rows, *event, device=device, dtype=dtype, requires_grad=True) for _ in range(2))
    call = timing.forward_backward(CONTENDERS[name](), [mu, logvar])
    timing.time(benchmark, name, call, device=device, moved=moved(dtype.itemsize) * mu.numel())
