"""Thin modules over :mod:`fastvae.ops`: likelihoods and the ELBO loss."""

from .bernoulli import Bernoulli as Bernoulli
from .bernoulli import ContinuousBernoulli as ContinuousBernoulli
from .discrete import Categorical as Categorical
from .discrete import DiscretizedLogistic as DiscretizedLogistic
from .discrete import DiscretizedLogisticMixture as DiscretizedLogisticMixture
from .elbo import ELBO as ELBO
from .elbo import ELBOLoss as ELBOLoss
from .gaussian import Gaussian as Gaussian
from .gaussian import GaussianHead as GaussianHead
from .gaussian import Laplace as Laplace
from .gaussian import LearnedGaussian as LearnedGaussian
from .gaussian import OptimalGaussian as OptimalGaussian
from .likelihood import Likelihood as Likelihood
from .names import as_likelihood as as_likelihood
