import pytest
import torch
from torch.distributions import Normal

from fastvae import reference


@pytest.mark.parametrize("estimator", ["iwae", "stl", "dreg"])
def test_against_torch(estimator: str) -> None:
    mu, logvar = torch.randn(2, 5, 3, 2, dtype=torch.float64)
    eps = torch.randn(5, 4, 3, 2, dtype=torch.float64)
    q = Normal(mu[:, None], (logvar[:, None] / 2).exp())
    z, log_ratio = reference.reparameterize_log_ratio(mu, logvar, eps, estimator=estimator)
    torch.testing.assert_close(z, q.mean + q.stddev * eps)
    torch.testing.assert_close(log_ratio, (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum((2, 3)))


def test_by_hand() -> None:
    # Deviation 2, mean 1, eps 1: z = 3, (9 - 1 - log 4) / 2.
    one = torch.ones(1, dtype=torch.float64)
    z, log_ratio = reference.reparameterize_log_ratio(one, (4 * one).log(), one[:, None])
    assert z.tolist() == [[pytest.approx(3.0)]]
    assert log_ratio.item() == pytest.approx(4 - (2 * one).log().item(), rel=1e-12)
