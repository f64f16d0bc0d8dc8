import torch
from scipy import integrate
from torch.distributions import ContinuousBernoulli

from fastvae import reference


def test_against_torch_away_from_one_half() -> None:
    logits = torch.linspace(-8, 8, 64, dtype=torch.float64).view(8, 8)
    target = torch.rand(8, 8, dtype=torch.float64)
    exact = -ContinuousBernoulli(logits=logits).log_prob(target).sum(1)
    torch.testing.assert_close(
        reference.continuous_bernoulli_nll(logits, target, reduction="none"), exact, rtol=1e-6, atol=1e-6
    )


def test_the_density_integrates_to_one() -> None:
    for logit in (-30.0, -2.0, -0.24, -1e-3, 0.0, 1e-9, 0.1, 0.2499, 0.2501, 5.0):

        def density(x: float, logit: float = logit) -> float:
            arguments = torch.tensor([[logit]], dtype=torch.float64), torch.tensor([[x]], dtype=torch.float64)
            return float(torch.exp(-reference.continuous_bernoulli_nll(*arguments)))

        assert abs(integrate.quad(density, 0, 1)[0] - 1) < 1e-9
