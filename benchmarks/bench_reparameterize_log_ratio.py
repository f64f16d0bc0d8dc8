"""K samples and their log ratios: forward writes z, backward reads its gradient, 8 bytes a sample's element in fp32."""

import pytest
import timing
import torch

from fastvae import ops

# (rows, samples, event): bound by launches and Python, and by the draws.
SHAPES = [(100, 5, 20), (1024, 16, 128)]


def eager(mu, logvar, samples):
    mu = mu[:, None]
    logvar = logvar[:, None]
    eps = torch.randn(len(mu), samples, mu.shape[2], device=mu.device)
    z = mu + torch.exp(0.5 * logvar) * eps
    log_ratio = 0.5 * (z.pow(2) - eps.pow(2) - logvar).sum(2)
    return z.sum() + log_ratio.sum()


def fused(mu, logvar, samples):
    z, log_ratio = ops.reparameterize_log_ratio(mu, logvar, timing.noise(mu.device), samples=samples)
    return z.sum() + log_ratio.sum()


CONTENDERS = {
    "fastvae": lambda: fused,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "samples", "event"), SHAPES)
def test_reparameterize_log_ratio(benchmark, device, rows, samples, event, name):
    benchmark.group = f"reparameterize_log_ratio {rows}x{samples}x{event} fp32, forward + backward"
    mu, logvar = (torch.randn(rows, event, device=device, requires_grad=True) for _ in range(2))
    call = timing.forward_backward(CONTENDERS[name](), [mu, logvar], samples)
    moved = (8 * samples + 24) * mu.numel()
    timing.time(benchmark, name, call, device=device, moved=moved)
