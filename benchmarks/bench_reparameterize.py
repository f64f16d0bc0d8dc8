"""The reparameterisation step: an ideal forward and backward move 24 bytes per element in fp32."""

import pytest
import timing
import torch

from fastvae import ops


def eager(mu, logvar):
    return (mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)).sum()


def fused(mu, logvar):
    return ops.reparameterize(mu, logvar, timing.noise(mu.device)).sum()


def moved(itemsize):
    """Bytes per element that ideal passes move."""
    return 6 * itemsize


CONTENDERS = {
    "fastvae": lambda: fused,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "event"), timing.LATENT_SHAPES)
def test_reparameterize(benchmark, device, rows, event, name):
    benchmark.group = f"reparameterize {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    mu, logvar = (torch.randn(rows, *event, device=device, requires_grad=True) for _ in range(2))
    call = timing.forward_backward(CONTENDERS[name](), [mu, logvar])
    timing.time(benchmark, name, call, device=device, moved=moved(4) * mu.numel())
