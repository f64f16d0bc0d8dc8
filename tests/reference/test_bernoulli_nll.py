import math

import pytest
import torch
import torch.nn.functional as F

from fastvae import reference


def test_against_torch() -> None:
    logits = 4 * torch.randn(5, 3, 4, dtype=torch.float64)
    target = torch.rand_like(logits)
    for reduction, divisor in (("sum", 1), ("batchmean", 5)):
        expected = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / divisor
        torch.testing.assert_close(reference.bernoulli_nll(logits, target, reduction=reduction), expected)
    expected = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum((1, 2))
    torch.testing.assert_close(reference.bernoulli_nll(logits, target, reduction="none"), expected)


def test_against_the_distribution() -> None:
    logits = torch.randn(5, 7, dtype=torch.float64)
    target = torch.randint(0, 2, (5, 7)).double()
    expected = -torch.distributions.Bernoulli(logits=logits).log_prob(target).sum()
    torch.testing.assert_close(reference.bernoulli_nll(logits, target, reduction="sum"), expected)


def test_by_hand() -> None:
    # sigmoid(log 3) = 3/4: a white pixel costs log(4/3), a black one log 4.
    logits = torch.full((2, 1), math.log(3), dtype=torch.float64)
    target = torch.tensor([[255], [0]], dtype=torch.uint8)
    loss = reference.bernoulli_nll(logits, target, reduction="none", weight=2.0)
    assert loss.tolist() == pytest.approx([2 * math.log(4 / 3), 2 * math.log(4)], rel=1e-12)


@pytest.mark.parametrize("logit", [-3.0, -1e-9, -0.0, 0.0, 1e-9, 3.0, 40.0])
def test_gradient_is_sigmoid_minus_x(logit: float) -> None:
    logits = torch.full((1, 3), logit, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[0.0, 0.25, 1.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(reference.bernoulli_nll(logits, x, reduction="sum"), logits)
    torch.testing.assert_close(gradient, logits.detach().sigmoid() - x, rtol=1e-12, atol=1e-16)


def test_the_wrong_side_of_a_confident_logit_keeps_its_gradient() -> None:
    # sigmoid followed by BCE gives a loss of 100 and a gradient of 0 here.
    logits = torch.tensor([[17.0]], requires_grad=True)
    loss = reference.bernoulli_nll(logits, torch.zeros(1, 1))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(17.0)
    assert gradient.item() == pytest.approx(1.0)
    naive = F.binary_cross_entropy(logits.sigmoid(), torch.zeros(1, 1))
    assert naive.item() == pytest.approx(100.0), "else the form of the reference has no reason"


def test_uint8_is_divided_by_255_and_never_multiplied() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)[:, None]
    logits = torch.ones(256, 1)
    by_division = reference.bernoulli_nll(logits, pixels.float() / 255, reduction="none")
    by_product = reference.bernoulli_nll(logits, pixels.float() * (1 / 255), reduction="none")
    assert torch.equal(reference.bernoulli_nll(logits, pixels, reduction="none"), by_division)
    assert not torch.equal(by_division, by_product)
