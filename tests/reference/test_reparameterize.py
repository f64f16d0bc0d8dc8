import math

import pytest
import torch

from fastvae import reference


def test_by_hand() -> None:
    mu = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    logvar = torch.tensor([[math.log(4), 0.0]], dtype=torch.float64)
    eps = torch.tensor([[0.5, -2.0]], dtype=torch.float64)
    assert reference.reparameterize(mu, logvar, eps).flatten().tolist() == pytest.approx([2.0, -3.0], rel=1e-15)


def test_gradients_by_hand() -> None:
    mu, logvar, eps = torch.randn(3, 4, 5, dtype=torch.float64)
    mu.requires_grad_()
    logvar.requires_grad_()
    z = reference.reparameterize(mu, logvar, eps)
    gradients = torch.autograd.grad(z.sum(), (mu, logvar))
    torch.testing.assert_close(gradients[0], torch.ones_like(mu))
    torch.testing.assert_close(gradients[1], (z - mu).detach() / 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once_from_fp32(dtype: torch.dtype) -> None:
    mu, logvar, eps = (torch.randn(64, 8).to(dtype) for _ in range(3))
    exact = mu.double() + torch.exp(0.5 * logvar.double()) * eps.double()
    z = reference.reparameterize(mu, logvar, eps)
    assert z.dtype == dtype
    assert (z != exact.to(dtype)).float().mean().item() < 0.01
    in_the_type_itself = mu + torch.exp(0.5 * logvar) * eps
    assert (in_the_type_itself != exact.to(dtype)).float().mean().item() > 0.1, "else this test shows nothing"


def test_reparameterize_kl_is_both() -> None:
    mu, logvar, eps = torch.randn(3, 4, 5)
    z, kl = reference.reparameterize_kl(mu, logvar, eps, reduction="none", weight=0.5)
    assert torch.equal(z, reference.reparameterize(mu, logvar, eps))
    assert torch.equal(kl, reference.gaussian_kl(mu, logvar, reduction="none", weight=0.5))
