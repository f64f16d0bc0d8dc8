import numpy as np
import torch
from scipy import stats

from fastvae import reference


def test_against_scipy() -> None:
    mean = np.random.default_rng(1).uniform(-0.2, 1.2, (64, 4))
    scale = np.exp(np.random.default_rng(2).uniform(-4, 1, (64, 4)))
    target = np.random.default_rng(3).integers(0, 256, (64, 4))
    target[:2] = [[0, 255, 1, 254], [255, 0, 254, 1]]
    upper = np.where(target == 255, np.inf, (target + 0.5) / 255)
    lower = np.where(target == 0, -np.inf, (target - 0.5) / 255)
    # From the nearer tail, where the difference of the distribution function keeps its digits.
    logistic = stats.logistic(mean, scale)
    exact = np.where(lower > mean, logistic.sf(lower) - logistic.sf(upper), logistic.cdf(upper) - logistic.cdf(lower))
    nll = reference.discretized_logistic_nll(
        torch.tensor(mean), torch.log(torch.tensor(scale)), torch.tensor(target, dtype=torch.uint8), reduction="none"
    )
    torch.testing.assert_close(nll, torch.tensor(-np.log(exact).sum(1)))


def test_the_256_probabilities_sum_to_one() -> None:
    target = torch.arange(256, dtype=torch.uint8).view(256, 1)
    for mean, log_scale in ((0.5, -3.0), (-0.4, -1.0), (1.3, -6.0), (0.2, 2.0)):
        m, s = (torch.full((256, 1), value, dtype=torch.float64) for value in (mean, log_scale))
        nll = reference.discretized_logistic_nll(m, s, target, reduction="none")
        torch.testing.assert_close(torch.exp(-nll).sum(), torch.ones((), dtype=torch.float64))
