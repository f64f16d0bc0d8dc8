"""The KL from a learned prior: an ideal pass moves 32 bytes per element in fp32."""

import pytest
import timing
import torch

from fastvae import ops


def eager(mu, logvar, prior_mu, prior_logvar):
    d = logvar - prior_logvar
    return 0.5 * torch.sum(torch.expm1(d) - d + (mu - prior_mu).pow(2) * torch.exp(-prior_logvar)) / len(mu)


def moved(itemsize):
    """Bytes per element that ideal passes move."""
    return 8 * itemsize


CONTENDERS = {
    "fastvae": lambda: ops.gaussian_prior_kl,
    "eager": lambda: eager,
    **timing.compiled(eager),
}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize(("rows", "event"), timing.LATENT_SHAPES)
def test_gaussian_prior_kl(benchmark, device, rows, event, name):
    benchmark.group = f"gaussian_prior_kl {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    leaves = [torch.randn(rows, *event, device=device, requires_grad=True) for _ in range(4)]
    call = timing.forward_backward(CONTENDERS[name](), leaves)
    timing.time(benchmark, name, call, device=device, moved=moved(4) * leaves[0].numel())
