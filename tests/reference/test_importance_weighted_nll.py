import math

import pytest
import torch
from scipy.special import logsumexp

from fastvae import reference


def test_against_scipy() -> None:
    nll, log_ratio = torch.randn(2, 5, 7, dtype=torch.float64)
    exact = -logsumexp(-(nll + log_ratio).numpy(), axis=1, b=1 / 7)
    loss = reference.importance_weighted_nll(nll, log_ratio, reduction="none")
    assert loss.tolist() == pytest.approx(exact.tolist(), rel=1e-12)
    assert reference.importance_weighted_nll(nll, log_ratio, weight=0.5).item() == pytest.approx(exact.mean() / 2)
    assert reference.importance_weighted_nll(nll, log_ratio, reduction="sum").item() == pytest.approx(exact.sum())


def test_by_hand() -> None:
    # The mean of the weights 1/2 and 1/6 is 1/3.
    nll = torch.tensor([[math.log(2), math.log(3)]], dtype=torch.float64)
    log_ratio = torch.tensor([[0.0, math.log(2)]], dtype=torch.float64)
    assert reference.importance_weighted_nll(nll, log_ratio).item() == pytest.approx(math.log(3), rel=1e-12)
