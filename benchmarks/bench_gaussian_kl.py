"""The KL alone: an ideal pass moves 16 bytes per element in fp32."""

import pytest
import timing
import torch

from fastvae import ops


def eager(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp()) / len(mu)


def moved(itemsize):
    """Bytes per element that ideal passes move."""
    return 4 * itemsize


CONTENDERS = {
    "fastvae": lambda: ops.gaussian_kl,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "event"), timing.LATENT_SHAPES)
def test_gaussian_kl(benchmark, device, rows, event, name):
    benchmark.group = f"gaussian_kl {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    mu, logvar = (torch.randn(rows, *event, device=device, requires_grad=True) for _ in range(2))
    call = timing.forward_backward(CONTENDERS[name](), [mu, logvar])
    timing.time(benchmark, name, call, device=device, moved=moved(4) * mu.numel())
