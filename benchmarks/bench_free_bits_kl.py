"""The KL with free bits, a group for each dimension: two ideal passes move 24 bytes per element in fp32."""

import pytest
import timing
import torch

from fastvae import ops

FREE_BITS = 0.5


def eager(mu, logvar):
    kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())
    return torch.clamp(kl.mean(0), min=FREE_BITS).sum()


def fused(mu, logvar):
    return ops.free_bits_kl(mu, logvar, FREE_BITS)


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
def test_free_bits_kl(benchmark, device, rows, event, name):
    benchmark.group = f"free_bits_kl {rows}x{'x'.join(map(str, event))} fp32, forward + backward"
    leaves = [torch.randn(rows, *event, device=device, requires_grad=True) for _ in range(2)]
    call = timing.forward_backward(CONTENDERS[name](), leaves)
    timing.time(benchmark, name, call, device=device, moved=moved(4) * leaves[0].numel())
