"""Likelihoods by name."""

from .bernoulli import Bernoulli, ContinuousBernoulli
from .discrete import Categorical, DiscretizedLogistic, DiscretizedLogisticMixture
from .gaussian import Gaussian, GaussianHead, Laplace, LearnedGaussian, OptimalGaussian
from .likelihood import Likelihood

_NAMES: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "learned_gaussian": LearnedGaussian,
    "optimal_gaussian": OptimalGaussian,
    "gaussian_head": GaussianHead,
    "laplace": Laplace,
    "discretized_logistic": DiscretizedLogistic,
    "discretized_logistic_mixture": DiscretizedLogisticMixture,
    "categorical": Categorical,
}


def as_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """Return a likelihood from its name (the class's, in snake case), or itself. Raise ValueError for another name."""
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood not in _NAMES:
        names = ", ".join(map(repr, _NAMES))
        raise ValueError(f"likelihood must be one of {names} or a fastvae.nn.Likelihood, not {likelihood!r}")
    return _NAMES[likelihood]()
